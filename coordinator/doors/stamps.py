"""Headers that every answer carries, whatever made it: a door, a stream, the framework's own refusals.

They are put on as the answer leaves, which is the one place nothing passes by. What a call has to say about itself waits in the
request's state until then.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Request
from litestar.datastructures import Cookie
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Message, Scope

from coordinator.doors.limits import Limiter, Quota

OUTAGE_RETRY_SECONDS = 5
_QUOTA, _RETRY, _COOKIES = "argosy_quota", "argosy_retry_after", "argosy_cookies"
EXPOSED = (
    "ETag, Idempotent-Replayed, Retry-After, X-Next-Cursor, X-Next-Page, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset"
)
_METHODS = "GET, POST, PUT, PATCH, DELETE"
_ACCEPTED = (
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, trpc-accept, trpc-batch-mode, "
    "x-csrf-token"
)


def remember(request: Request[Any, Any, Any], quota: Quota | None, retry_after: int | None = None) -> None:
    """What the last call of a request has left its caller, and how long it should wait."""
    state = request.scope["state"]
    if quota is not None:
        state[_QUOTA] = quota
    if retry_after is not None:
        state[_RETRY] = retry_after


def keep_session(request: Request[Any, Any, Any], cookies: Sequence[Cookie]) -> None:
    """What the browser is to keep from the last call of a request on."""
    request.scope["state"][_COOKIES] = tuple(cookies)


class Stamps:
    """`origins`: browsers' pages elsewhere that may call with this user's cookie; others get no word about it, which is what makes
    their browser refuse."""

    def __init__(self, limiter: Limiter, origins: frozenset[str]) -> None:
        self._limiter = limiter
        self._origins = origins

    async def __call__(self, message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start" or scope["type"] != ScopeType.HTTP:
            return
        extra = self._limits(scope) | self._waits(scope, message["status"]) | self._cors(scope)
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in extra.items()]
        made = list(message["headers"])
        present = {name.lower() for name, _ in made}  # a door that says it itself knows better
        added = [pair for pair in encoded if pair[0] not in present]
        cookies = [cookie.to_encoded_header() for cookie in scope["state"].get(_COOKIES, ())]
        message["headers"] = [*made, *added, *cookies]

    def _limits(self, scope: HTTPScope) -> dict[str, str]:
        quota: Quota | None = scope["state"].get(_QUOTA)
        if quota is None:
            client = scope.get("client")
            quota = self._limiter.look(client[0] if client else "")
        return quota.headers() if quota else {}

    def _waits(self, scope: HTTPScope, status: int) -> dict[str, str]:
        match status:
            case 429:
                return {"Retry-After": str(scope["state"].get(_RETRY, 1))}
            case 503:
                return {"Retry-After": str(OUTAGE_RETRY_SECONDS)}
            case _:
                return {}

    def _cors(self, scope: HTTPScope) -> dict[str, str]:
        if not self._origins:
            return {}
        asked = _values(scope, b"origin", b"access-control-request-method")
        headers = {"Vary": "Origin"}
        origin = asked.get(b"origin", "")
        if origin not in self._origins:
            return headers
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked:
            return headers | {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _ACCEPTED,
                "Access-Control-Max-Age": "600",
            }
        return headers | {"Access-Control-Expose-Headers": EXPOSED}


def _values(scope: HTTPScope, *names: bytes) -> Mapping[bytes, str]:
    return {name: value.decode("latin-1") for name, value in scope["headers"] if name in names}
