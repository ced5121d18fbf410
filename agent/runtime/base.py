"""The one protocol every engine is driven through; the fake and the Docker runtime pass the same contract test.

A runtime does what it is told and reports what it sees. It decides nothing: no retries, no restart policy, no backoff.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from agent.core.observe import Observed
from shared.spec.instance import Assignment, InstanceSecrets
from shared.spec.node import Engine
from shared.wire.frames import LogLine

LABEL_NODE = "argosy.node"
LABEL_INSTANCE = "argosy.instance"
LABEL_CONTAINER = "argosy.container"
LABEL_SLOT = "argosy.slot"
LABEL_REVISION = "argosy.revision"
LABEL_SPEC = "argosy.spec"


@dataclass(frozen=True)
class EngineFacts:
    engine: Engine
    platform: str
    data_root: str
    """Where images and volumes live, as the engine names it; readable by the agent only when on the same mount namespace."""


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to an engine container of ours; `instance_id` None: look at everything (also sent first, once the
    subscription stands)."""

    instance_id: str | None


class Runtime(Protocol):
    """Every method may raise RuntimeFault: EngineUnreachable when there is no engine to talk to, Unanswered when one call is not
    answered. Only what concerns the whole engine (`facts`, `observe`, `events`) takes that for an engine out of reach."""

    async def facts(self) -> EngineFacts: ...

    async def observe(self) -> list[Observed]:
        """All engine containers with this node's label, whatever their state; never anybody else's."""

    async def inspect(self, engine_id: str) -> Observed | None:
        """None when it is gone."""

    def events(self) -> AsyncGenerator[EngineEvent, None]:
        """Ends or raises EngineUnreachable when the subscription breaks; the caller subscribes again and lists."""

    async def image_id(self, image: str) -> str | None:
        """The local image's id, None when it must be pulled first."""

    async def pull(self, image: str, secrets: InstanceSecrets, progress: Callable[[int, int], None]) -> None:
        """`progress(done, known)` in bytes, as often as the engine says something."""

    async def create(self, assignment: Assignment, secrets: InstanceSecrets) -> str:
        """The new engine container's id. An engine container of the same instance that already exists is returned as it is."""

    async def start(self, engine_id: str) -> None:
        """Also of one that runs already, or ran before: its file system and logs go on."""

    async def stop(self, engine_id: str, grace: int) -> None:
        """SIGTERM, after `grace` seconds SIGKILL. Of one that is stopped or gone: nothing."""

    async def remove(self, engine_id: str) -> None:
        """Kill if need be, and remove with its anonymous volumes. Of one that is gone: nothing."""

    async def remove_volume(self, name: str) -> None:
        """Of one that is gone: nothing."""

    async def execute(self, engine_id: str, command: list[str], timeout: float) -> tuple[int, str]:
        """Exit code and the first 1 KiB of output. TimeoutError after `timeout` seconds."""

    def logs(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        """In the engine's order, stdout and stderr interleaved. Ends with the engine container, or at once without `follow`."""

    async def close(self) -> None: ...
