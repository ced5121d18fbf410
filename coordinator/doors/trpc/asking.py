"""What one HTTP request asks for: which calls, in which of tRPC's framings, with which inputs.

A refusal here is of the whole request. What is wrong with one call of a batch, its input included, is that call's own error.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from litestar import Request

from coordinator.doors import decode, streams
from coordinator.doors.trpc.wire import Refusal
from coordinator.errors import BadRequest, TooLarge
from coordinator.procedures.table import TABLE, Kind

MAX_CALLS = 32
"""In one batch: each runs at the same time as the others and is paid for from the caller's budget."""

Style = Literal["single", "events", "batch", "json lines", "object lines"]
"""`events`: Server-Sent Events of `httpSubscriptionLink`. `json lines`, `object lines`: how `httpBatchStreamLink` wants a batch, in
version 11 and in version 10."""
_METHODS: Mapping[Kind, tuple[str, ...]] = {
    "query": ("GET", "POST"),
    "mutation": ("POST",),
    "subscription": ("GET", "POST"),
}


@dataclass(frozen=True)
class Asked:
    """`kind`: of all calls that exist, None when none does."""

    paths: list[str]
    style: Style
    kind: Kind | None

    @property
    def is_batch(self) -> bool:
        return self.style not in ("single", "events")


def read(request: Request[Any, Any, Any], path: str) -> Asked:
    """Raises Refusal."""
    if request.method not in ("GET", "POST"):
        raise Refusal("METHOD_NOT_SUPPORTED", f"{request.method} is no method of tRPC", {"Allow": "GET, POST"})
    if request.method == "POST" and not _is_json(request):
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", "the body must be JSON, with the content type application/json")
    batch = request.query_params.get("batch") == "1"
    paths = path.split(",", MAX_CALLS) if batch else [path]
    if len(paths) > MAX_CALLS:
        raise Refusal("BAD_REQUEST", f"a batch has at most {MAX_CALLS} calls")
    kinds = sorted({TABLE[name].kind for name in paths if name in TABLE})
    if len(kinds) > 1:
        raise Refusal("BAD_REQUEST", f"a batch has calls of one kind, not {' and '.join(kinds)}")
    return Asked(paths, _style(request, batch, paths), kinds[0] if kinds else None)


def check_method(method: str, name: str) -> None:
    """That a call of this procedure may be made with this method. Raises Refusal. Unknown procedures are not found elsewhere."""
    if name not in TABLE:
        return
    kind = TABLE[name].kind
    if method not in _METHODS[kind]:
        allowed = {"Allow": ", ".join(_METHODS[kind])}
        raise Refusal("METHOD_NOT_SUPPORTED", f"{name} is a {kind}: it is not called with {method}", allowed)


def _style(request: Request[Any, Any, Any], batch: bool, paths: list[str]) -> Style:
    wanted = request.headers.get("trpc-accept") or request.headers.get("accept") or ""
    lines = "application/jsonl" in [part.strip() for part in wanted.split(",")]
    if batch:
        return "json lines" if lines else "object lines" if wants_object_lines(request) else "batch"
    if lines:
        raise Refusal("BAD_REQUEST", "only a batch is streamed: a batch of one will do")
    subscribes = paths[0] in TABLE and TABLE[paths[0]].kind == "subscription"
    return "events" if subscribes or wants_events(request) else "single"


def wants_object_lines(request: Request[Any, Any, Any]) -> bool:
    return request.headers.get("trpc-batch-mode") == "stream"


def wants_events(request: Request[Any, Any, Any]) -> bool:
    return streams.SSE in request.headers.get("accept", "")


def _is_json(request: Request[Any, Any, Any]) -> bool:
    media, _, _ = request.headers.get("content-type", "").partition(";")
    return media.strip().lower() == "application/json"


class Inputs:
    """The raw inputs of a request's calls, empty where none was given. Not read before the first is asked for, and to be asked for
    by one call at a time."""

    def __init__(self, request: Request[Any, Any, Any], batch: bool) -> None:
        self._request = request
        self._batch = batch
        self._split: dict[str, msgspec.Raw] | None = None

    async def of(self, index: int) -> bytes:
        """Raises BadRequest or TooLarge."""
        if not self._batch:
            return _or_nothing(await self._whole())
        if self._split is None:
            self._split = split(await self._whole())
        return _or_nothing(bytes(self._split.get(str(index), b"")))

    async def _whole(self) -> bytes:
        if self._request.method == "POST":
            return await self._request.body()
        given: str = self._request.query_params.get("input") or ""
        return given.encode(errors="surrogatepass")


def split(whole: bytes) -> dict[str, msgspec.Raw]:
    """A batch's inputs by the index of their call. Raises BadRequest or TooLarge."""
    if len(whole) > decode.MAX_BODY_BYTES:
        raise TooLarge(f"the inputs have more than {decode.MAX_BODY_BYTES} bytes")
    try:
        inputs = msgspec.json.decode(whole or b"{}", type=dict[str, msgspec.Raw])
        keys = [key for key, _ in json.loads(whole or b"{}", object_pairs_hook=list, parse_int=float)]
    except msgspec.ValidationError as error:
        raise BadRequest('the inputs of a batch are an object, such as {"0": …, "1": …}') from error
    except RecursionError as error:
        raise BadRequest("the inputs are nested too deeply") from error
    except ValueError as error:  # malformed JSON and malformed UTF-8 alike
        raise BadRequest(f"the inputs are not valid JSON: {error}") from error
    if len(keys) != len(inputs):
        raise BadRequest("two inputs are given for one call")
    return inputs


def _or_nothing(raw: bytes) -> bytes:
    """Clients of other languages say null where JavaScript leaves an undefined input out."""
    return b"" if raw.strip() == b"null" else raw
