"""Where browsers leave for the OpenID provider, and where it sends them back to.

The browser keeps the state of its own sign-in in a cookie of a few minutes: a link that somebody else has prepared, with their code
in it, finds no such cookie and signs nobody in.
"""

import hmac
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from coordinator.doors import stamps
from coordinator.doors.cookies import Cookies
from coordinator.doors.reception import Reception, Visit
from coordinator.errors import Unauthorized
from coordinator.procedures import session_openid
from coordinator.procedures.openid import CALLBACK_PATH
from coordinator.procedures.session_openid import AWAY_SECONDS, START_PATH

STATE = "argosy_oidc"
_PATH = "/auth/oidc"


def oidc_routes(reception: Reception, cookies: Cookies) -> list[HTTPRouteHandler]:
    @get(START_PATH, include_in_schema=False)
    async def start(request: Request[Any, Any, Any]) -> Response[bytes]:
        query = request.query_params
        context = await reception.welcome(Visit(request))
        left = await session_openid.depart(context, query.get("returnTo", "/"), query.get("invitation", ""))
        stamps.keep_session(request, [cookies.cookie(STATE, left.state, int(AWAY_SECONDS), path=_PATH)])
        return _go(left.url)

    @get(CALLBACK_PATH, include_in_schema=False)
    async def callback(request: Request[Any, Any, Any]) -> Response[bytes]:
        query = request.query_params
        context = await reception.welcome(Visit(request))
        state, kept = query.get("state", ""), request.cookies.get(STATE, "")
        if not state or not hmac.compare_digest(state.encode(), kept.encode()):
            raise Unauthorized("this sign-in was not begun in this browser: begin again")
        if "code" not in query:
            raise Unauthorized(f"the OpenID provider refused: {query.get('error', 'it gave no reason')[:200]}")
        return_to = await session_openid.arrive(context, state, query["code"])
        used = cookies.cookie(STATE, "", 0, path=_PATH)
        stamps.keep_session(request, [used, *cookies.kept(context.browser.keeps or "")])
        return _go(return_to)

    return [start, callback]


def _go(url: str) -> Response[bytes]:
    headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(b"", status_code=303, headers=headers)
