"""Whether something accepts connections."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agent.probes.failure import ProbeFailed

_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM})


async def probe_tcp(host: str, port: int, timeout: float) -> None:
    """Raises ProbeFailed."""
    async with connection(host, port, timeout):
        pass


@asynccontextmanager
async def connection(
    host: str, port: int, timeout: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connected within `timeout` seconds. Leaving closes it without waiting for the other side to agree."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, limit=8192)
    except TimeoutError as error:
        raise ProbeFailed(f"no answer from {host}:{port} in {timeout:g} s", reached=False) from error
    except OSError as error:
        raise ProbeFailed(f"{_words(error)} on {host}:{port}", reached=error.errno not in _NO_WAY) from error
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _words(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error) or "connection failed"
