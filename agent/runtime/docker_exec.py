"""Running a command inside an engine container, for health checks: a little of its output, its exit code, a time limit."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.core.faults import RuntimeFault
from agent.runtime.docker_api import CALL_SECONDS, EngineApi
from agent.runtime.docker_logs import FrameSplitter
from shared.spec import reason

_MAX_OUTPUT = 1024


async def execute(api: EngineApi, engine_id: str, command: list[str], timeout: float) -> tuple[int, str]:
    async with api.ask("start", CALL_SECONDS) as docker:
        execution = (await docker.containers.container(engine_id).exec(command)).id
    try:
        async with asyncio.timeout(timeout):
            output = await _output(api, execution)
    except TimeoutError:
        await _end(api, engine_id, execution)
        raise
    exit_code = (await _inspect(api, execution))["ExitCode"]
    if exit_code is None:
        raise RuntimeFault(reason.ENGINE_ERROR, "the command's output ended before the command", temporary=True)
    return int(exit_code), output


async def _output(api: EngineApi, execution: str) -> str:
    """The first KiB; the rest is read and thrown away, else the command would wait on a full pipe."""
    kept = b""
    splitter = FrameSplitter()
    stream = api.post(f"exec/{execution}/start", {}, patience=CALL_SECONDS, doing="start")
    stream.body = {"Detach": False, "Tty": False}
    async with stream as content:
        while data := await content.readany():
            for _, payload in splitter.feed(data):
                kept = (kept + payload)[:_MAX_OUTPUT]
    return kept.decode("utf-8", "replace")


async def _inspect(api: EngineApi, execution: str) -> dict[str, Any]:
    async with api.ask("other", CALL_SECONDS) as docker:
        return await docker.containers.exec(execution).inspect()


async def _end(api: EngineApi, engine_id: str, execution: str) -> None:
    """The engine cannot end what it executes, and checks that hang would pile up. The agent can where it sees the process: its
    cgroup names the engine container, so it is never another process with the same number."""
    with suppress(RuntimeFault, OSError):
        pid = (await _inspect(api, execution))["Pid"]
        if pid and engine_id in await asyncio.to_thread(Path(f"/proc/{pid}/cgroup").read_text):
            os.kill(pid, signal.SIGKILL)
