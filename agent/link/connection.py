"""One websocket to the coordinator, with a deadline on everything that can hang, and errors that say what to do about them.

The write limit is nothing at all: `send` returns once the kernel took the frame, and the kernel is told to take no more than
`_UNSENT_BYTES` it has not put on the wire. Whoever waits to send next can therefore still be overtaken by something more
urgent; what is behind that point cannot.
"""

import socket
from contextlib import suppress
from http import HTTPStatus

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from agent import VERSION
from shared.wire.codec import MAX_FRAME_BYTES, FrameError

DIAL_SECONDS = 10.0
"""For name, TCP, TLS and upgrade together."""
_CLOSE_SECONDS = 2.0
_UNSENT_BYTES = 128 * 1024
_CLOSE_TEXT_BYTES = 120
"""A close frame carries 125 bytes, two of them the code."""


class DialError(Exception):
    """No connection came about. `after`: seconds the other side asked to stay away."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class DisconnectedError(Exception):
    """The connection ended. `code` None: without a close frame."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(message)
        self.code = code


class Connection:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise _disconnected(error) from error

    async def receive(self) -> bytes:
        """Raises FrameError for what is not a binary message."""
        try:
            data = await self._socket.recv()
        except ConnectionClosed as error:
            raise _disconnected(error) from error
        if isinstance(data, str):
            raise FrameError("a text message; frames are binary")
        return data

    async def close(self, code: int, message: str) -> None:
        """Never raises and never takes longer than `_CLOSE_SECONDS`: the other side may be gone or deaf."""
        text = message.encode()[:_CLOSE_TEXT_BYTES].decode(errors="ignore")
        with suppress(OSError, WebSocketException):
            await self._socket.close(code, text)

    def abort(self) -> None:
        """At once and without a word; nothing when it is closed already."""
        self._socket.transport.abort()


async def dial(endpoint: str) -> Connection:
    """Raises DialError."""
    try:
        opened = await connect(
            endpoint,
            compression=None,
            ping_interval=None,
            open_timeout=DIAL_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            max_size=MAX_FRAME_BYTES,
            max_queue=8,
            write_limit=(0, 0),
            user_agent_header=f"argosy-agent/{VERSION}",
            happy_eyeballs_delay=0.25,
        )
    except InvalidStatus as error:
        raise _refused(error) from error
    except TimeoutError as error:
        raise DialError(f"{endpoint} did not answer within {DIAL_SECONDS:g} s") from error
    except (OSError, WebSocketException, ValueError, ImportError) as error:
        raise DialError(f"{endpoint}: {_text(error)}") from error
    _limit_unsent(opened)
    return Connection(opened)


def _limit_unsent(opened: ClientConnection) -> None:
    plug: socket.socket = opened.transport.get_extra_info("socket")
    if plug.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # an optimisation, and the peer may be gone again; whoever sends next learns that
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def _refused(error: InvalidStatus) -> DialError:
    status = error.response.status_code
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        wish = error.response.headers.get("Retry-After", "")
        return DialError(f"the coordinator is busy (HTTP {status})", float(wish) if wish.isdecimal() else 0.0)
    return DialError(f"the coordinator answered HTTP {status}: is the URL right, and is a proxy in the way?")


def _disconnected(error: ConnectionClosed) -> DisconnectedError:
    if error.rcvd is not None:
        return DisconnectedError(error.rcvd.code, error.rcvd.reason or f"closed with code {error.rcvd.code}")
    if error.sent is not None and error.sent.code != 1000:
        return DisconnectedError(None, error.sent.reason or f"ended by this side with code {error.sent.code}")
    return DisconnectedError(None, _text(error.__cause__) if error.__cause__ else "the connection was lost")


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
