"""The coordinator as a process: what it tells whoever starts it, and how it leaves."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def coordinator(data_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator", "--data-dir", str(data_dir), "--bind", bind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={key: value for key, value in os.environ.items() if not key.startswith("ARGOSY_")},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def stopped_after(data_dir: Path, event: str) -> tuple[int, str]:
    """Status and everything it wrote, when told to stop as soon as it tells of `event`."""
    async with coordinator(data_dir) as process:
        assert process.stdout is not None
        written = ""
        while event not in written:
            line = (await process.stdout.readline()).decode()
            assert line, f"it ended before it told of {event}: {written}"
            written += line
        process.send_signal(signal.SIGTERM)
        rest, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, written + rest.decode()


async def test_told_to_stop_before_it_is_up_it_leaves_in_order(tmp_path: Path) -> None:
    status, written = await stopped_after(tmp_path, "starting")
    assert status == 0, written


async def test_without_a_terminal_the_token_stays_in_its_file(tmp_path: Path) -> None:
    status, written = await stopped_after(tmp_path, "listening")
    token = (tmp_path / "admin-token").read_text().strip()
    assert status == 0, written
    assert f"the admin token is in {tmp_path / 'admin-token'}" in written
    assert token not in written
