"""`/api/openapi.json`, and the page at `/api/docs` that shows it.

The page, Swagger UI included, comes from this coordinator alone, also where there is no internet; its content security policy lets
it load and call nothing else. Everything is read when the module is imported, because the loop must not wait for a disk.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from coordinator.doors import conditions
from coordinator.doors.openapi.document import encoded
from coordinator.errors import NotFound

POLICY = (
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; "  # Swagger UI's own elements carry style attributes; scripts stay strict
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_ASSETS = Path(__file__).parent / "assets"
_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True)
class Page:
    """Something that stays as it is while the coordinator runs."""

    body: bytes
    media: str
    etag: str


def _page(path: Path) -> Page:
    body = path.read_bytes()
    return Page(body, f"{_MEDIA[path.suffix]}", f'"{sha256(body).hexdigest()[:32]}"')


_INDEX = _page(_ASSETS / "docs.html")
_PARTS = {
    path.name: _page(path)
    for path in (
        _ASSETS / "docs.css",
        _ASSETS / "docs.js",
        _ASSETS / "swagger-ui" / "swagger-ui.css",
        _ASSETS / "swagger-ui" / "swagger-ui-bundle.js",
    )
}


def docs_routes() -> list[HTTPRouteHandler]:
    document = Page(encoded()[0], "application/json", encoded()[1])

    @route("/api/openapi.json", http_method=["GET", "HEAD"], include_in_schema=False)
    async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _answer(request, document)

    @route("/api/docs", http_method=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _answer(request, _INDEX)

    @route("/api/docs/{name:str}", http_method=["GET", "HEAD"], include_in_schema=False)
    async def part(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        found = _PARTS.get(name)
        if found is None:
            raise NotFound(f"nothing is served at {request.url.path}")
        return _answer(request, found)

    return [openapi, index, part]


def _answer(request: Request[Any, Any, Any], page: Page) -> Response[bytes]:
    """Kept by browsers, and asked for again each time: after an update nobody sees the page of before."""
    headers = {"ETag": page.etag, "Cache-Control": "no-cache", **_PAGE_HEADERS}
    if not conditions.has_changed(request.headers.get("if-none-match"), page.etag):
        return Response(b"", status_code=304, headers=headers)
    return Response(page.body, media_type=page.media, headers=headers)
