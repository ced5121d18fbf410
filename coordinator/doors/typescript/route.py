"""`/api/trpc.d.ts`: public like the documentation, the same bytes as long as the coordinator runs."""

import hashlib
from functools import lru_cache
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from coordinator.doors import conditions
from coordinator.doors.typescript.module import render
from coordinator.procedures.table import TABLE, Procedure

MAX_AGE_SECONDS = 300
"""After an update of the coordinator the old types are seen for so long at most."""


def typescript_route() -> HTTPRouteHandler:
    body = _module(tuple(TABLE.values()))
    headers = {
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Cache-Control": f"public, max-age={MAX_AGE_SECONDS}",
        "X-Content-Type-Options": "nosniff",
    }

    @get("/api/trpc.d.ts", include_in_schema=False)
    async def types(request: Request[Any, Any, Any]) -> Response[bytes]:
        if not conditions.has_changed(request.headers.get("if-none-match"), headers["ETag"]):
            return Response(b"", status_code=304, headers=headers)
        return Response(body, media_type="application/typescript; charset=utf-8", headers=headers)

    return types


@lru_cache(maxsize=2)
def _module(procedures: tuple[Procedure, ...]) -> bytes:
    """Once, however many applications a process makes of one table."""
    return render({one.name: one for one in procedures}).encode()
