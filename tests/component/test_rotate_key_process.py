"""`argosy-coordinator rotate-key` as an operator runs it: beside a running coordinator, without one, and cut by a kill."""

import asyncio
import base64
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(120)


def environment(**extra: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("ARGOSY_")} | extra


async def program(data_dir: Path, *arguments: str, **extra: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator", "--data-dir", str(data_dir), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(**extra),
    )


async def rotate(data_dir: Path, **extra: str) -> tuple[int | None, str]:
    process = await program(data_dir, "rotate-key", **extra)
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@asynccontextmanager
async def running(data_dir: Path, **extra: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Its address, once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    process = await program(data_dir, "--bind", bind, **extra)
    assert process.stdout is not None
    try:
        written = ""
        while "listening" not in written:
            line = (await process.stdout.readline()).decode()
            assert line, written
            written += line
        yield bind, process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def call(bind: str, data_dir: Path, procedure: str, **data: object) -> Any:
    token = (await asyncio.to_thread((data_dir / "admin-token").read_text)).strip()
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await client.post(f"http://{bind}/api/{procedure}", json=data, headers=headers)
    assert answer.is_success, answer.text
    return answer.json()["result"]["data"]


async def organization(bind: str, data_dir: Path) -> str:
    (found,) = await call(bind, data_dir, "organization.all")
    return str(found["id"])


async def keep_secret(bind: str, data_dir: Path) -> str:
    made = await call(
        bind,
        data_dir,
        "secret.create",
        organizationId=await organization(bind, data_dir),
        key="TOKEN",
        value="hush",
    )
    return str(made["id"])


async def revealed(bind: str, data_dir: Path, secret_id: str) -> object:
    return (await call(bind, data_dir, "secret.reveal", secretId=secret_id))["value"]


async def test_beside_a_running_coordinator_and_without_one(tmp_path: Path) -> None:
    key = tmp_path / "master.key"
    async with running(tmp_path) as (bind, _):
        secret_id = await keep_secret(bind, tmp_path)
        before = key.read_bytes()
        status, said = await rotate(tmp_path)
        assert (status, "the master key was replaced" in said) == (0, True), said
        first = key.read_bytes()
        assert first != before
        assert key.stat().st_mode & 0o777 == 0o600
        assert await revealed(bind, tmp_path, secret_id) == "hush"
    status, said = await rotate(tmp_path)
    assert status == 0, said
    assert key.read_bytes() not in (before, first)
    async with running(tmp_path) as (bind, _):
        assert await revealed(bind, tmp_path, secret_id) == "hush"
    key.write_bytes(before)
    process = await program(tmp_path, "--bind", "127.0.0.1:1")
    said_at_start, _ = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in said_at_start


async def test_a_key_of_the_environment_needs_the_next_one_and_may_wait_for_it(tmp_path: Path) -> None:
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    async with running(tmp_path, ARGOSY_MASTER_KEY=old) as (bind, _):
        assert not (tmp_path / "master.key").exists()
        secret_id = await keep_secret(bind, tmp_path)
        status, said = await rotate(tmp_path)
        assert (status, "ARGOSY_MASTER_KEY_NEXT: is needed" in said) == (1, True), said
        status, said = await rotate(tmp_path, ARGOSY_MASTER_KEY_NEXT_COMMAND=f"echo {new}")
        assert (status, "give it to the next start" in said) == (0, True), said
        assert new not in said
        assert await revealed(bind, tmp_path, secret_id) == "hush"
    for given in (old, new):
        async with running(tmp_path, ARGOSY_MASTER_KEY=given) as (bind, _):
            assert await revealed(bind, tmp_path, secret_id) == "hush"
    process = await program(tmp_path, ARGOSY_MASTER_KEY=old)
    said_at_start, _ = await process.communicate()
    assert process.returncode == 1
    assert b"the master key does not belong to this database" in said_at_start


async def test_killed_in_the_middle_it_opens_again(tmp_path: Path) -> None:
    """At moments nobody chose."""
    secret_id = ""
    for delay in (0.0, 0.005, 0.02, 0.05):
        async with running(tmp_path) as (bind, process):
            secret_id = secret_id or await keep_secret(bind, tmp_path)
            assert await revealed(bind, tmp_path, secret_id) == "hush"
            asking = await program(tmp_path, "rotate-key")
            socket_opened = tmp_path / "coordinator.sock"
            assert socket_opened.exists()
            before = (tmp_path / "argosy.db-wal").stat().st_mtime_ns
            async with asyncio.timeout(30):
                while (tmp_path / "argosy.db-wal").stat().st_mtime_ns == before and asking.returncode is None:
                    await asyncio.sleep(0.0005)
            await asyncio.sleep(delay)
            process.kill()
            await asking.communicate()
    async with running(tmp_path) as (bind, _):
        assert await revealed(bind, tmp_path, secret_id) == "hush"


async def test_where_there_is_no_installation_nothing_is_made(tmp_path: Path) -> None:
    status, said = await rotate(tmp_path)
    assert (status, "there is no master key" in said) == (1, True), said
    assert list(tmp_path.iterdir()) == []
