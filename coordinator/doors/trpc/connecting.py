"""A token in the query. A browser's EventSource cannot send an Authorization header; tRPC's `connectionParams` are made for this.
From here on it is the header, so that nothing behind knows a second way.

A header wins when both are there. URLs end up in the logs of proxies: whoever can send a header should.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import Headers

from coordinator.doors.trpc.wire import Refusal

TOKEN = "token"  # noqa: S105 — the name of a parameter
MAX_BYTES = 16 * 1024


class Rewritten(Request[Any, Any, Any]):
    """A request with other headers, and the same body, state and answer. The framework keeps a request's headers where all that
    share its scope's state see them, so that another scope would not do."""

    def __init__(self, request: Request[Any, Any, Any], headers: Iterable[tuple[str, str]]) -> None:
        super().__init__(request.scope, request.receive, request.send)
        self._headers = Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])

    @property
    def headers(self) -> Headers:
        return self._headers


def with_token(request: Request[Any, Any, Any]) -> Request[Any, Any, Any]:
    """The request, with the token of its `connectionParams` as its bearer. Raises Refusal."""
    given = request.query_params.get("connectionParams")
    if given is None:
        return request
    token = _params(given).get(TOKEN)
    if token is None or "authorization" in request.headers:
        return request
    if not token.isascii() or not token.isprintable():
        raise Refusal("BAD_REQUEST", f"connectionParams: {TOKEN} has characters that no token has")
    return Rewritten(request, [*request.headers.multi_items(), ("authorization", f"Bearer {token}")])


def _params(given: str) -> dict[str, str]:
    try:
        if len(given) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} characters")
        return msgspec.json.decode(given, type=dict[str, str] | None) or {}
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise Refusal("BAD_REQUEST", f"connectionParams: must be a JSON object of strings: {error}") from error
