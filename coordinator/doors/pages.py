"""Pages and their parts, the same bytes as long as the coordinator runs. They are read when modules are imported, because the loop
must not wait for a disk; nothing of them comes from elsewhere."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from litestar import Request, Response

from coordinator.doors import conditions

ASSETS = Path(__file__).parent / "assets"
_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True)
class Page:
    """`policy`: its content security policy."""

    body: bytes
    media: str
    etag: str
    policy: str


def page(path: Path, policy: str) -> Page:
    body = path.read_bytes()
    return Page(body, _MEDIA[path.suffix], f'"{sha256(body).hexdigest()[:32]}"', policy)


def answer(request: Request[Any, Any, Any], found: Page) -> Response[bytes]:
    """Kept by browsers, and asked for again each time: after an update nobody sees the page of before."""
    headers = {
        "ETag": found.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": found.policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if not conditions.has_changed(request.headers.get("if-none-match"), found.etag):
        return Response(b"", status_code=304, headers=headers)
    return Response(found.body, media_type=found.media, headers=headers)
