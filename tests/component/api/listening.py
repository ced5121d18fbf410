"""The API on a real port of this machine, in the test's own event loop: for clients that are programs of their own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from litestar import Litestar


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the test run's."""
        yield


@dataclass
class Listening:
    url: str
    _server: _Server

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def cut(self) -> None:
        """Breaks every connection, as a network does."""
        for connection in list(self._server.server_state.connections):
            cast("Any", connection).transport.abort()


@asynccontextmanager
async def listening(app: Litestar) -> AsyncIterator[Listening]:
    config = uvicorn.Config(
        cast("Any", app),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield Listening(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
        finally:
            server.should_exit = True
            await serving
