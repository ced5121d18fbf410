"""Whether an HTTP server answers well: a GET, no redirect followed, the body of no interest.

Plain streams and not an HTTP client: one request line, one status line, and a probe that costs next to nothing.
"""

import asyncio
import re

from agent.probes.failure import ProbeFailed
from agent.probes.tcp import connection

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r|\n|$)")


async def probe_http(host: str, port: int, path: str, timeout: float) -> None:
    """200–399 passes; else raises ProbeFailed. `timeout` is of the whole, so a server that trickles does not pass."""
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        async with connection(host, port, timeout) as (reader, writer), asyncio.timeout_at(deadline):
            writer.write(_request(host, port, path))
            status = await _status(reader)
    except TimeoutError as error:
        raise ProbeFailed(f"no answer from {host}:{port} in {timeout:g} s") from error
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ProbeFailed(f"{host}:{port} closed the connection without an answer") from error
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise ProbeFailed(f"{host}:{port} does not speak HTTP") from error
    if not 200 <= status < 400:
        raise ProbeFailed(f"answered {status}")


def _request(host: str, port: int, path: str) -> bytes:
    name = f"[{host}]" if ":" in host else host
    # A path is validated to begin with "/" only: what could end the line or leave ASCII must not get into the request.
    clean = "".join(char if "!" <= char <= "~" else _escaped(char) for char in path)
    lines = (
        f"GET {clean} HTTP/1.1",
        f"Host: {name}:{port}",
        "User-Agent: argosy-probe",
        "Accept: */*",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))


async def _status(reader: asyncio.StreamReader) -> int:
    """Of the final answer: informational ones (1xx) come before it."""
    while True:
        match = _STATUS.match(await reader.readuntil(b"\n"))
        if match is None:
            raise ValueError("no status line")
        status = int(match[1])
        if status >= 200:
            return status
        while (await reader.readuntil(b"\n")).strip():
            pass
