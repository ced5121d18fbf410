"""The other side of a drain: an HTTP server that keeps what it is sent, and answers as a test wants."""

import asyncio
import gzip
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.decode().split("\n") if line]


@dataclass
class Receiver:
    """`answers`: status, headers and text of the next answers; then 204. While `open` is not set nothing is answered."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    accepted: list[Request] = field(default_factory=list)
    answers: deque[tuple[int, dict[str, str], str]] = field(default_factory=deque)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    body_limit: int | None = None

    def lines(self) -> list[str]:
        """Of the containers, from plain JSON lines."""
        return [
            one["line"]
            for request in self.accepted
            for one in request.objects()
            if one["stream"] in ("stdout", "stderr")
        ]

    def notices(self) -> list[dict[str, Any]]:
        return [one for request in self.accepted for one in request.objects() if one["stream"] == "argosy"]

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Receiver"]:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.open.set()
        assert site._server is not None
        bound = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{bound}"
        try:
            yield self
        finally:
            self.open.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        raw = await request.content.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        found = Request(request.path, headers, raw)
        if headers.get("content-encoding") == "gzip" and raw[:2] == b"\x1f\x8b":
            found = Request(request.path, headers, gzip.decompress(raw))
        self.requests.append(found)
        await self.open.wait()
        if self.body_limit is not None and len(found.body) > self.body_limit:
            return web.Response(status=413, text="too much")
        status, more, text = self.answers.popleft() if self.answers else (204, {}, "")
        if 200 <= status < 300:
            self.accepted.append(found)
        return web.Response(status=status, headers=more, text=text or None)
