"""`/invitation#<token>`: where the link of an invitation leads, so that who gets one needs no other tool to make an account.

The token is in the fragment, which browsers send to nobody: it is in no log of a proxy, and only the page's own script passes it
on."""

from typing import Any

from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler

from coordinator.doors.pages import ASSETS, answer, page

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PARTS = {
    "/invitation": page(ASSETS / "invitation.html", POLICY),
    "/invitation/page.js": page(ASSETS / "invitation.js", POLICY),
    "/invitation/page.css": page(ASSETS / "invitation.css", POLICY),
}


def invitation_route() -> HTTPRouteHandler:
    @route(list(_PARTS), http_method=["GET", "HEAD"], include_in_schema=False)
    async def invitation(request: Request[Any, Any, Any]) -> Response[bytes]:
        return answer(request, _PARTS[request.url.path.rstrip("/")])

    return invitation
