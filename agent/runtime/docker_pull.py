"""Pulling an image: no total time limit, it may take hours, but the engine must keep saying something.

An error in the middle comes as a line of a stream that began with 200, one at the beginning as a status; both mean the same.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable

import msgspec

from agent.core.faults import RuntimeFault
from agent.runtime.docker_api import EngineApi, json_lines
from agent.runtime.docker_faults import fault
from agent.runtime.docker_spec import pull_reference, registry_auth
from agent.runtime.pull_progress import PullLine, PullProgress
from shared.spec import reason
from shared.spec.instance import InstanceSecrets

SILENCE_SECONDS = 60.0

_decoder = msgspec.json.Decoder(PullLine)


async def pull(api: EngineApi, image: str, secrets: InstanceSecrets, progress: Callable[[int, int], None]) -> None:
    try:
        await _pull(api, image, secrets, progress)
    except TimeoutError as error:
        message = f"the pull of {image} made no progress in {SILENCE_SECONDS:.0f} s"
        raise RuntimeFault(reason.IMAGE_PULL_FAILED, message, temporary=True) from error
    except ValueError as error:
        message = f"the engine's answer to the pull of {image} cannot be read: {error}"
        raise RuntimeFault(reason.IMAGE_PULL_FAILED, message, temporary=True) from error


async def _pull(api: EngineApi, image: str, secrets: InstanceSecrets, progress: Callable[[int, int], None]) -> None:
    seen = PullProgress()
    stream = api.post("images/create", pull_reference(image), patience=SILENCE_SECONDS, doing="pull")
    stream.headers = _credentials(image, secrets)
    async with stream as content:
        lines = json_lines(content)
        while (line := await _next(lines)) is not None:
            if line.failure:
                raise fault(0, line.failure, "pull")
            if seen.saw(line):
                progress(seen.done, seen.known)


async def _next(lines: AsyncGenerator[bytes, None]) -> PullLine | None:
    async with asyncio.timeout(SILENCE_SECONDS):
        line = await anext(lines, None)
    return None if line is None else _decoder.decode(line)


def _credentials(image: str, secrets: InstanceSecrets) -> dict[str, str]:
    auth = registry_auth(image, secrets)
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()} if auth else {}
