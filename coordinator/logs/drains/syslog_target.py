"""Syslog over TCP, TLS or UDP.

The protocol has no acknowledgement. What can be known on Linux is whether the other machine's kernel has taken all bytes; a batch
counts as delivered when it has, so that a connection that breaks in the middle costs repeats and not lines. Of a datagram nothing
is known at all.
"""

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from urllib.parse import urlsplit

from coordinator.logs.drains import syslog
from coordinator.logs.drains.lines import Entry
from coordinator.logs.drains.targets import DeliveryError, Refused, addresses
from coordinator.store.log_drains import DrainConfig

CONNECT_SECONDS = 10.0
TAKEN_SECONDS = 30.0
_LOOK_SECONDS = 0.005
_LONGEST_LOOK = 0.1
_DATAGRAM = 60_000


class SyslogTarget:
    """`context`: for tls."""

    def __init__(self, config: DrainConfig, context: ssl.SSLContext) -> None:
        parsed = urlsplit(config.url)
        self._scheme, self._host, self._port = parsed.scheme, parsed.hostname or "", parsed.port or 514
        self._facility = config.facility
        self._context = context
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, entries: list[Entry]) -> Refused:
        messages = await asyncio.to_thread(lambda: [syslog.message(entry, self._facility) for entry in entries])
        try:
            async with asyncio.timeout(CONNECT_SECONDS + TAKEN_SECONDS):
                if self._scheme == "udp":
                    (address, *_) = await addresses(self._host, self._port, socket.SOCK_DGRAM)
                    await asyncio.to_thread(self._send_datagrams, address, messages)
                else:
                    await self._send_stream(syslog.counted(messages))
        except TimeoutError as error:
            await self.close()
            raise DeliveryError(f"{self._host}:{self._port} does not take what is sent") from error
        except OSError as error:  # an ssl.SSLError is one
            await self.close()
            raise DeliveryError(f"{self._host}:{self._port}: {error.strerror or error}") from error
        except BaseException:
            await self.close()
            raise
        return Refused()

    async def close(self) -> None:
        if self._stream is not None:
            _, writer = self._stream
            self._stream = None
            writer.transport.abort()  # nothing waits in it: what was sent was waited for, or is sent again
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _send_stream(self, data: bytes) -> None:
        reader, writer = await self._connected()
        writer.write(data)
        await writer.drain()
        pause = _LOOK_SECONDS
        while not _taken(writer):
            if reader.at_eof() or writer.transport.is_closing():
                raise ConnectionResetError("the connection was closed by the other side")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._stream is not None:
            reader, writer = self._stream
            if not (reader.at_eof() or writer.transport.is_closing()):
                return self._stream
            await self.close()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                *others, last = await addresses(self._host, self._port)
                for address in others:
                    with contextlib.suppress(OSError):
                        self._stream = await self._open(address)
                        return self._stream
                self._stream = await self._open(last)
        except TimeoutError as error:
            raise ConnectionError(f"no connection in {CONNECT_SECONDS:g} seconds") from error
        return self._stream

    async def _open(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._scheme != "tls":
            return await asyncio.open_connection(address, self._port)
        return await asyncio.open_connection(address, self._port, ssl=self._context, server_hostname=self._host)

    def _send_datagrams(self, address: str, messages: list[bytes]) -> None:
        """Blocks a little while the socket is full."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.settimeout(CONNECT_SECONDS)
            sender.connect((address, self._port))
            for each in messages:
                sender.send(each[:_DATAGRAM])


def _taken(writer: asyncio.StreamWriter) -> bool:
    """Whether nothing of it is here any more, neither in the transport nor in the socket."""
    if writer.transport.get_write_buffer_size():
        return False
    descriptor = writer.get_extra_info("socket").fileno()
    if descriptor < 0:
        raise ConnectionResetError("the connection was closed by the other side")
    (unsent,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))
    return bool(unsent == 0)
