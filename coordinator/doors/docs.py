"""`/api/openapi.json`, and the page at `/api/docs` that shows it.

The page, Swagger UI included, comes from this coordinator alone, also where there is no internet; its content security policy lets
it load and call nothing else.
"""

from typing import Any

from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from coordinator.doors.openapi.document import encoded
from coordinator.doors.pages import ASSETS, Page, answer, page
from coordinator.errors import NotFound

POLICY = (
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; "  # Swagger UI's own elements carry style attributes; scripts stay strict
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_INDEX = page(ASSETS / "docs.html", POLICY)
_PARTS = {
    path.name: page(path, POLICY)
    for path in (
        ASSETS / "docs.css",
        ASSETS / "docs.js",
        ASSETS / "swagger-ui" / "swagger-ui.css",
        ASSETS / "swagger-ui" / "swagger-ui-bundle.js",
    )
}


def docs_routes() -> list[HTTPRouteHandler]:
    document = Page(encoded()[0], "application/json", encoded()[1], POLICY)

    @route("/api/openapi.json", http_method=["GET", "HEAD"], include_in_schema=False)
    async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
        return answer(request, document)

    @route("/api/docs", http_method=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request[Any, Any, Any]) -> Response[bytes]:
        return answer(request, _INDEX)

    @route("/api/docs/{name:str}", http_method=["GET", "HEAD"], include_in_schema=False)
    async def part(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        found = _PARTS.get(name)
        if found is None:
            raise NotFound(f"nothing is served at {request.url.path}")
        return answer(request, found)

    return [openapi, index, part]
