"""The Docker Engine as a Runtime. The only place where an instance's engine container is a thing with a Docker id.

Ours are found by label (node, instance), never by name: names are for people, may be taken by anybody and changed by anybody.
Every call has a time limit; only pulls, events and logs go on for as long as the engine has something to say.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import structlog
from aiodocker import Docker, DockerError
from msgspec import Struct, field

from agent.core.faults import EngineUnreachable, RuntimeFault
from agent.core.observe import Observed
from agent.runtime.base import LABEL_INSTANCE, LABEL_NODE, EngineEvent, EngineFacts
from agent.runtime.docker_api import CALL_SECONDS, EngineApi, json_lines, tolerating
from agent.runtime.docker_exec import execute
from agent.runtime.docker_logs import LogDecoder
from agent.runtime.docker_observed import LISTED, listed, observed
from agent.runtime.docker_pull import pull
from agent.runtime.docker_spec import engine_config, names
from shared.spec import reason
from shared.spec.instance import Assignment, InstanceSecrets
from shared.spec.node import Engine
from shared.wire.frames import LogLine

log = structlog.get_logger()

STOP_MARGIN_SECONDS = 15.0
REMOVE_SECONDS = 120.0
"""Of a large file system on a slow disk."""
INSPECT_SECONDS = 10.0
"""When all are looked at: one engine container that hangs in the engine must not hide the others."""
_INSPECTS_AT_ONCE = 8
_EVENTS = ["create", "start", "die", "oom", "pause", "unpause", "destroy"]
_REPLAY_SECONDS = 1.0
"""The engine answers an event request a moment before it listens; what happened in between is asked for again."""


class _Actor(Struct):
    attributes: dict[str, str] = field(name="Attributes", default_factory=dict)


class _Event(Struct):
    actor: _Actor = field(name="Actor", default_factory=_Actor)


_event = msgspec.json.Decoder(_Event)


class DockerRuntime:
    """`address`: where this node's published ports are reached, as far as it is known."""

    def __init__(self, docker_host: str, node_id: str, address: Callable[[], str]) -> None:
        self._api = EngineApi(docker_host)
        self._node_id = node_id
        self._address = address
        self._log_driver: str | None = None
        self._inspects = asyncio.Semaphore(_INSPECTS_AT_ONCE)

    async def facts(self) -> EngineFacts:
        async with self._api.ask_whole(CALL_SECONDS) as docker:
            version = await docker.version()
            info = await docker.system.info()
            self._log_driver = info["LoggingDriver"]
            engine = Engine("docker", version["Version"], version["ApiVersion"])
            return EngineFacts(engine, f"{version['Os']}/{version['Arch']}", info["DockerRootDir"])

    async def observe(self) -> list[Observed]:
        async with self._api.ask_whole(CALL_SECONDS) as docker:
            summaries = await docker.containers.list(all=True, filters=self._ours())
            found_there = [{key: summary[key] for key in LISTED} for summary in summaries]
        looks = [self._look(summary) for summary in found_there]
        # Their failures are collected, so that none is left running behind the first one.
        found = await asyncio.gather(*looks, return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in found if isinstance(outcome, Observed)]

    async def inspect(self, engine_id: str) -> Observed | None:
        return await self._inspect(engine_id, CALL_SECONDS)

    async def events(self) -> AsyncGenerator[EngineEvent, None]:
        filters = self._ours() | {"type": ["container"], "event": _EVENTS}
        params = {"filters": json.dumps(filters), "since": f"{time.time() - _REPLAY_SECONDS:.3f}"}
        try:
            async with self._api.stream("events", params, patience=CALL_SECONDS) as content:
                yield EngineEvent(None)
                async for line in json_lines(content):
                    yield EngineEvent(_event.decode(line).actor.attributes.get(LABEL_INSTANCE))
        except (TimeoutError, ValueError) as error:
            raise EngineUnreachable(f"the engine's events cannot be read: {error}") from error
        raise EngineUnreachable("the engine closed its event stream")

    async def image_id(self, image: str) -> str | None:
        async with self._api.ask("other", CALL_SECONDS) as docker:
            with tolerating(404):
                return str((await docker.images.inspect(image))["Id"])
        return None

    async def pull(self, image: str, secrets: InstanceSecrets, progress: Callable[[int, int], None]) -> None:
        await pull(self._api, image, secrets, progress)

    async def create(self, assignment: Assignment, secrets: InstanceSecrets) -> str:
        if self._log_driver is None:
            await self.facts()
        config = engine_config(assignment, secrets, self._node_id, self._log_driver or "")
        async with self._api.ask("create", CALL_SECONDS) as docker:
            for name in (*names(assignment), None):
                try:
                    return str((await docker.containers.create(config, name=name)).id)
                except DockerError as error:
                    if error.status != 409 or name is None:
                        raise
                # The name is taken: by an earlier call whose answer was lost, even a moment ago, or by somebody else's.
                existing = await self._of_instance(docker, assignment.instance_id)
                if existing is not None:
                    return existing
        raise AssertionError("without a name there is no conflict")

    async def start(self, engine_id: str) -> None:
        async with self._api.ask("start", CALL_SECONDS) as docker:
            await docker.containers.container(engine_id).start()

    async def stop(self, engine_id: str, grace: int) -> None:
        async with self._api.ask("other", grace + STOP_MARGIN_SECONDS) as docker:
            with tolerating(404):
                await docker.containers.container(engine_id).stop(t=grace)

    async def remove(self, engine_id: str) -> None:
        async with self._api.ask("other", REMOVE_SECONDS) as docker:
            container = docker.containers.container(engine_id)
            with tolerating(404):
                try:
                    await container.delete(force=True, v=True)
                except DockerError as error:
                    if error.status != 409 or "already in progress" not in error.message:
                        raise
                    await container.wait(condition="removed")

    async def remove_volume(self, name: str) -> None:
        async with self._api.ask("other", CALL_SECONDS) as docker:
            with tolerating(404):
                volumes: Any = docker.volumes  # aiodocker left these without types
                volume = await volumes.get(name)
                if ((await volume.show()).get("Labels") or {}).get(LABEL_NODE) != self._node_id:
                    log.warning("a volume that is not this node's was left alone", volume=name)
                    return
                await volume.delete()

    async def execute(self, engine_id: str, command: list[str], timeout: float) -> tuple[int, str]:
        return await execute(self._api, engine_id, command, timeout)

    async def logs(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
        params["tail"] = "all" if tail is None else str(tail)
        params |= {key: f"{at:.9f}" for key, at in (("since", since), ("until", until)) if at is not None}
        async with self._api.ask("other", CALL_SECONDS) as docker:
            shown = await docker.containers.container(engine_id).show()
        decoder = LogDecoder(terminal=bool(shown["Config"]["Tty"]))
        try:
            async with self._api.stream(f"containers/{engine_id}/logs", params, patience=CALL_SECONDS) as content:
                while data := await content.readany():
                    for line in decoder.feed(data):
                        yield line
                for line in decoder.end():
                    yield line
        except (TimeoutError, ValueError) as error:
            message = f"the log cannot be read: {error or 'no answer'}"
            raise RuntimeFault(reason.ENGINE_ERROR, message, temporary=True) from error

    async def close(self) -> None:
        await self._api.close()

    def _ours(self) -> dict[str, list[str]]:
        return {"label": [f"{LABEL_NODE}={self._node_id}"]}

    async def _of_instance(self, docker: Docker, instance_id: str) -> str | None:
        labels = [*self._ours()["label"], f"{LABEL_INSTANCE}={instance_id}"]
        existing = await docker.containers.list(all=True, filters={"label": labels})
        return str(existing[0].id) if existing else None

    async def _look(self, summary: dict[str, Any]) -> Observed | None:
        async with self._inspects:
            try:
                return await self._inspect(summary["Id"], INSPECT_SECONDS)
            except EngineUnreachable:
                raise
            except RuntimeFault:
                # It has just been listed: what the engine said there is less, but true.
                return listed(summary)

    async def _inspect(self, engine_id: str, timeout: float) -> Observed | None:
        async with self._api.ask("other", timeout) as docker:
            with tolerating(404):
                return observed(await docker.containers.container(engine_id).show(), self._address())
        return None
