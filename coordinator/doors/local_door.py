"""The door for whoever runs this machine: a Unix socket in the data directory, which only the coordinator's own user and root may
open. What it is asked concerns the installation and no tenant, so it is no procedure of the API, and no token opens it.

One request and one answer a connection, each a line of JSON.
"""

import asyncio
import os
import socket
import struct
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from coordinator.errors import DomainError, StartError
from coordinator.store.errors import StoreError
from coordinator.store.vault import VaultError

log = structlog.get_logger("local door")
SOCKET = "coordinator.sock"
PATIENCE_SECONDS = 10.0
_MOST_BYTES = 4096
_CREDENTIALS = struct.Struct("3i")


class Ask(msgspec.Struct, frozen=True, tag="rotateKey", tag_field="ask", forbid_unknown_fields=True):
    """`key`: base64 of the new master key; empty: make one."""

    key: str = ""

    def __repr__(self) -> str:
        return "Ask(…)"


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`error` empty: done."""

    error: str = ""
    values: int = 0
    finished: bool = False


Rotate = Callable[[bytes | None], Awaitable[Answer]]


class LocalDoor:
    """Open from `open` to `close`."""

    def __init__(self, directory: Path, rotate: Rotate) -> None:
        self._directory = directory
        self._rotate = rotate
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Raises StartError."""
        listener = await asyncio.to_thread(_bind, self._directory)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_MOST_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            await asyncio.to_thread((self._directory / SOCKET).unlink, missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _is_ours(writer):
                answer = await self._answer(reader)
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # whoever asked has gone, or said nothing that can be read: nobody is left to tell
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await reader.readline()
        try:
            ask = msgspec.json.decode(line, type=Ask)
            return await self._rotate(b64decode(ask.key, validate=True) if ask.key else None)
        except (msgspec.DecodeError, BinasciiError):
            return Answer(error="the request cannot be read")
        except DomainError as error:
            return Answer(error=error.message)
        except (StoreError, VaultError) as error:
            return Answer(error=str(error))
        except Exception:  # a defect is told in full to the log, and to whoever asks that there is one
            log.exception("a local request failed")
            return Answer(error="the coordinator failed; its log says why")


async def ask(directory: Path, key: bytes | None) -> Answer | None:
    """What the running coordinator answers; None when none runs from this data directory. Raises OSError."""
    with _reachable(directory) as path:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=_MOST_BYTES)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
    try:
        request = Ask(b64encode(key).decode() if key else "")
        writer.write(msgspec.json.encode(request) + b"\n")
        line = await reader.readline()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if not line:
        raise OSError("the coordinator ended before it answered")
    return msgspec.json.decode(line, type=Answer)


def _bind(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before it has a name: nobody finds it open to others for a moment
        (directory / SOCKET).unlink(missing_ok=True)
        with _reachable(directory) as path:
            listener.bind(path)
        listener.listen(4)
    except OSError as error:
        listener.close()
        raise StartError(f"ARGOSY_DATA_DIR: {directory / SOCKET}: {error.strerror}") from error
    return listener


@contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """A path of the socket that is short enough, however long the directory's own is: the limit is 107 bytes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    peer = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return user in (0, os.geteuid())
