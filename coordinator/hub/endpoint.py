"""The one place where the hub touches Litestar: its raw websocket handler, the fastest it has."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler

from coordinator.hub.parts import Socket

PATH = "/agent/v1"
_REASON_BYTES = 123  # RFC 6455: a control frame's 125, less the code


class LitestarSocket:
    def __init__(self, socket: WebSocket[Any, Any, Any]) -> None:
        self._socket = socket

    async def receive(self) -> bytes | None:
        try:
            event = await self._socket.receive()
        except WebSocketDisconnect:
            return None
        if event["type"] == "websocket.disconnect":
            return None
        data = event.get("bytes")
        return data if isinstance(data, bytes) else b""  # a text message is no frame: refused where frames are decoded

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send({"type": "websocket.send", "bytes": data, "text": None})
        except WebSocketDisconnect as error:
            raise ConnectionResetError("the agent closed the websocket") from error

    async def close(self, code: int, reason: str) -> None:
        try:
            await self._socket.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
        except (OSError, WebSocketDisconnect):
            return  # closed already, which is what was wanted


def agent_route(serve: Callable[[Socket, str], Awaitable[None]]) -> WebsocketRouteHandler:
    @websocket(PATH, opt={"exclude_from_auth": True}, name="agent")
    async def agent(socket: WebSocket[Any, Any, Any]) -> None:
        """Agents prove who they are inside the channel, by their key."""
        await socket.accept()
        client = socket.client
        await serve(LitestarSocket(socket), client.host if client else "")

    return agent
