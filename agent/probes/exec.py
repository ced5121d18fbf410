"""Whether a command inside the container ends with 0."""

from typing import Protocol

from agent.probes.failure import ProbeFailed

_MAX_OUTPUT = 200


class Executor(Protocol):
    """The part of a Runtime that runs commands."""

    async def execute(self, engine_id: str, command: list[str], timeout: float) -> tuple[int, str]: ...


async def probe_exec(executor: Executor, engine_id: str, command: list[str], timeout: float) -> None:
    """Raises ProbeFailed, or RuntimeFault when the engine could not even try."""
    try:
        exit_code, output = await executor.execute(engine_id, command, timeout)
    except TimeoutError as error:
        raise ProbeFailed(f"the command did not end in {timeout:g} s") from error
    if exit_code != 0:
        said = " ".join(output.split())[:_MAX_OUTPUT]
        raise ProbeFailed(f"the command ended with {exit_code}" + (f": {said}" if said else ""))
