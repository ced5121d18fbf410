"""Raw ASGI: requests and answers that go on, and bodies no client library would send."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any


class Exchange:
    """One request to an application. `status` and `headers` once the answer has begun; `body` as far as it has come."""

    def __init__(self, app: Any, scope: dict[str, Any], parts: AsyncIterator[bytes]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._parts = parts
        self._more = True
        self.read = 0
        self._begun = asyncio.Event()
        self._left = asyncio.Event()
        self.task = asyncio.create_task(app(scope, self._receive, self._send))
        self.task.add_done_callback(lambda _: self._begun.set())

    async def begun(self) -> "Exchange":
        async with asyncio.timeout(20):
            await self._begun.wait()
        return self

    async def leave(self) -> None:
        """The client goes away, wherever the answer is."""
        self._left.set()
        async with asyncio.timeout(20):
            await self.task

    async def ended(self) -> "Exchange":
        async with asyncio.timeout(20):
            await self.task
        return self

    async def _receive(self) -> dict[str, Any]:
        if self._more:
            part = await anext(self._parts, None)
            self._more = part is not None
            self.read += len(part or b"")
            return {"type": "http.request", "body": part or b"", "more_body": self._more}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            self._begun.set()
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body", False):
                self._left.set()  # as servers do: whoever waits for more of a complete exchange is told that it is over


async def request(
    app: Any,
    path: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    parts: AsyncIterator[bytes] | None = None,
) -> Exchange:
    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.1", 1234),
        "server": ("coordinator.test", 80),
    }
    return await Exchange(app, scope, parts or _nothing()).begun()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def opened(app: Any, path: str, token: str) -> Exchange:
    return await request(app, path, headers=[("Authorization", f"Bearer {token}"), ("Accept", "text/event-stream")])
