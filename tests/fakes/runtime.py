"""An engine in memory: what the agent's parts are tested against when no Docker Engine is wanted.

It passes the contract test of the Docker runtime (`tests/component/test_runtime_contract.py`), so a test that holds with it
holds for the right reasons. On top it can be told to fail: `fail` (the next calls), `gates` (calls that wait), `go_down`
(the engine does not answer), `crash` and `vanish` (what happens to engine containers behind the agent's back).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from agent.core.faults import EngineUnreachable, RuntimeFault, Unanswered
from agent.core.observe import Observed
from agent.runtime.base import EngineEvent, EngineFacts
from shared.spec import reason
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec, PortBinding
from shared.spec.node import Engine
from shared.wire.frames import LogLine

STDOUT, STDERR = 1, 2
_LINE_NS = 1_000_000
"""Between two lines at least, so that a time between them can be written as a float."""


@dataclass(frozen=True)
class Program:
    """What a command does: its output at start, then either it goes on for ever (`exit_code` None) or ends."""

    output: tuple[tuple[int, str], ...] = ()
    exit_code: int | None = None
    executable: bool = True


@dataclass
class FakeContainer:
    assignment: Assignment
    environment: dict[str, str]
    observed: Observed
    starts: int = 0
    lines: list[LogLine] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, when there is a new line or the process ended."""

    @property
    def running(self) -> bool:
        return self.observed.state == "running"

    @property
    def spec(self) -> InstanceSpec:
        assert self.assignment.spec is not None
        return self.assignment.spec


class FakeRuntime:
    """`calls` lists (method, subject) in order: the image for pulls, the volume's name, the instance id for everything else."""

    def __init__(
        self, node_id: str = "node_1", address: str = "10.0.0.1", wall: Callable[[], float] = time.time
    ) -> None:
        self.node_id = node_id
        self.address = address
        self.wall = wall
        self.images: dict[str, str] = {}
        self.missing_images: set[str] = set()
        self.programs: dict[tuple[str, ...], Program] = {}
        self.executions: dict[tuple[str, ...], tuple[int, str] | None] = {}  # None: it hangs
        self.containers: dict[str, FakeContainer] = {}
        self.volumes: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.bare: set[str] = set()
        """Instances that the engine lists but does not inspect: the call hangs."""
        self.down = False
        self.closed = False
        self._faults: dict[str, list[Exception]] = defaultdict(list)
        self._subscribers: set[asyncio.Queue[EngineEvent | None]] = set()
        self._made = 0
        self._next_port = 32768

    # --- what a test does to the engine

    def fail(self, method: str, *faults: Exception, subject: str = "") -> None:
        """The next calls of `method` (of that subject only, if given) raise these, one each."""
        self._faults[f"{method}:{subject}" if subject else method].extend(faults)

    def go_down(self) -> None:
        """The engine stops answering; what it runs goes on."""
        self.down = True
        for queue in self._subscribers:
            queue.put_nowait(None)

    def come_up(self) -> None:
        self.down = False

    def crash(self, instance_id: str, exit_code: int = 1, *, out_of_memory: bool = False) -> None:
        """The instance's process ends by itself."""
        container = self.of(instance_id)
        assert container is not None, f"{instance_id} has no engine container"
        assert container.running, f"{instance_id} does not run"
        self._end(container, exit_code, out_of_memory=out_of_memory)

    def stir(self, instance_id: str) -> None:
        """An event about it, whatever happened."""
        self._tell(instance_id)

    def vanish(self, instance_id: str) -> None:
        """Somebody removes the engine container, without asking the agent."""
        container = self.of(instance_id)
        assert container is not None, f"{instance_id} has no engine container"
        self._drop(container)

    def write_log(self, instance_id: str, text: str, stream: int = STDOUT) -> None:
        container = self.of(instance_id)
        assert container is not None, f"{instance_id} has no engine container"
        self._log(container, stream, text)

    def of(self, instance_id: str) -> FakeContainer | None:
        return next((c for c in self.containers.values() if c.assignment.instance_id == instance_id), None)

    def count(self, method: str, subject: str = "") -> int:
        return sum(1 for name, about in self.calls if name == method and subject in ("", about))

    # --- Runtime

    async def facts(self) -> EngineFacts:
        await self._enter("facts", "")
        return EngineFacts(
            Engine(name="docker", version="0.fake", api_version="1.41"), "linux/amd64", "/var/lib/docker"
        )

    async def observe(self) -> list[Observed]:
        await self._enter("observe", "")
        return [self._listed(container.observed) for container in self.containers.values()]

    async def inspect(self, engine_id: str) -> Observed | None:
        await self._enter("inspect", self._subject(engine_id))
        container = self.containers.get(engine_id)
        if container is not None and container.assignment.instance_id in self.bare:
            raise Unanswered(30)
        return container.observed if container else None

    async def events(self) -> AsyncGenerator[EngineEvent, None]:
        await self._enter("events", "")
        queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            yield EngineEvent(None)
            while (event := await queue.get()) is not None:
                yield event
            raise EngineUnreachable("the event stream broke")
        finally:
            self._subscribers.discard(queue)

    async def image_id(self, image: str) -> str | None:
        await self._enter("image_id", image)
        return self.images.get(image)

    async def pull(self, image: str, secrets: InstanceSecrets, progress: Callable[[int, int], None]) -> None:
        await self._enter("pull", image)
        if image in self.missing_images:
            raise RuntimeFault(reason.IMAGE_NOT_FOUND, f"the registry has no image {image!r}", temporary=False)
        progress(500, 1000)
        progress(1000, 1000)
        self.images[image] = f"sha256:{image}"

    async def create(self, assignment: Assignment, secrets: InstanceSecrets) -> str:
        await self._enter("create", assignment.instance_id)
        existing = self.of(assignment.instance_id)
        if existing is not None:
            return existing.observed.engine_id
        spec = assignment.spec
        assert spec is not None, "a tombstone is never created"
        image_id = self.images.get(spec.image)
        if image_id is None:
            raise RuntimeFault(reason.IMAGE_NOT_FOUND, f"{spec.image!r} is not on this node", temporary=True)
        self._made += 1
        engine_id = f"{self._made:064x}"
        environment = {var.key: var.value for var in spec.env} | secrets.env
        observed = Observed(engine_id, assignment.instance_id, assignment.spec_hash, "created", image_id=image_id)
        self.containers[engine_id] = FakeContainer(assignment, environment, observed)
        self.volumes.update(volume.source for volume in spec.volumes if not volume.host)
        self._tell(assignment.instance_id)
        return engine_id

    async def start(self, engine_id: str) -> None:
        await self._enter("start", self._subject(engine_id))
        container = self._existing(engine_id)
        if container.running:
            return
        program = self.programs.get(tuple(container.spec.command), Program())
        if not program.executable:
            message = f"exec: {container.spec.command[0]!r}: executable file not found in $PATH"
            raise RuntimeFault(reason.INVALID, message, temporary=False)
        self._start(container, self._bind(container))
        for stream, text in program.output:
            self._log(container, stream, text)
        if program.exit_code is not None:
            self._end(container, program.exit_code)

    async def stop(self, engine_id: str, grace: int) -> None:
        await self._enter("stop", self._subject(engine_id))
        container = self.containers.get(engine_id)
        if container is not None and container.running:
            self._end(container, 143)

    async def remove(self, engine_id: str) -> None:
        await self._enter("remove", self._subject(engine_id))
        container = self.containers.get(engine_id)
        if container is not None:
            self._drop(container)

    async def remove_volume(self, name: str) -> None:
        await self._enter("remove_volume", name)
        for container in self.containers.values():
            if any(volume.source == name and not volume.host for volume in container.spec.volumes):
                raise RuntimeFault(reason.ENGINE_ERROR, f"volume {name!r} is in use", temporary=True)
        self.volumes.discard(name)

    async def execute(self, engine_id: str, command: list[str], timeout: float) -> tuple[int, str]:
        async with asyncio.timeout(timeout):
            await self._enter("execute", self._subject(engine_id))
            if not self._existing(engine_id).running:
                raise RuntimeFault(reason.ENGINE_ERROR, "the container is not running", temporary=True)
            outcome = self.executions.get(tuple(command), (0, ""))
            if outcome is None:
                await asyncio.Event().wait()
                raise AssertionError("nothing sets it")
            return outcome

    async def logs(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        await self._enter("logs", self._subject(engine_id))
        container = self._existing(engine_id)
        sent = len(container.lines)
        past = [line for line in container.lines if _within(line, since, until)]
        for line in past if tail is None else past[len(past) - min(tail, len(past)) :]:
            yield line
        while follow:
            changed = container.changed
            fresh = container.lines[sent:]
            sent += len(fresh)
            for line in fresh:
                if _within(line, since, until):
                    yield line
            if sent < len(container.lines):
                continue
            if not container.running:
                return
            await changed.wait()

    async def close(self) -> None:
        self.closed = True

    # --- inside

    async def _enter(self, method: str, subject: str) -> None:
        self.calls.append((method, subject))
        for key in (method, f"{method}:{subject}"):
            if key in self.gates:
                await self.gates[key].wait()
        if self.down:
            raise EngineUnreachable("the engine does not answer")
        for key in (f"{method}:{subject}", method):
            if self._faults.get(key):
                raise self._faults[key].pop(0)
        await asyncio.sleep(0)  # every real call lets others run

    def _listed(self, seen: Observed) -> Observed:
        if seen.instance_id not in self.bare:
            return seen
        return Observed(seen.engine_id, seen.instance_id, seen.spec_hash, seen.state, image_id=seen.image_id)

    def _subject(self, engine_id: str) -> str:
        container = self.containers.get(engine_id)
        return container.assignment.instance_id if container else engine_id

    def _existing(self, engine_id: str) -> FakeContainer:
        container = self.containers.get(engine_id)
        if container is None:
            raise RuntimeFault(reason.REMOVED_OUTSIDE, f"no such container: {engine_id}", temporary=True)
        return container

    def _bind(self, container: FakeContainer) -> list[PortBinding]:
        taken = {(b.host_port, b.protocol) for c in self.containers.values() for b in c.observed.ports}
        bindings = []
        for port in container.spec.ports:
            if (port.host_port, port.protocol) in taken:
                raise RuntimeFault(reason.PORT_TAKEN, f"port {port.host_port} is already allocated", temporary=False)
            if port.host_port is None:
                self._next_port += 1
            bindings.append(PortBinding(port.port, port.host_port or self._next_port, self.address, port.protocol))
        return bindings

    def _start(self, container: FakeContainer, ports: list[PortBinding]) -> None:
        container.starts += 1
        before = container.observed
        container.observed = Observed(
            before.engine_id,
            before.instance_id,
            before.spec_hash,
            "running",
            started_at=self.wall(),
            ports=ports,
            image_id=before.image_id,
            pid=1000 + self._made,
            ip="" if container.spec.security.host_network else "172.17.0.2",
        )
        self._tell(before.instance_id)

    def _end(self, container: FakeContainer, exit_code: int, *, out_of_memory: bool = False) -> None:
        container.observed = replace(
            container.observed,
            state="exited",
            exit_code=exit_code,
            out_of_memory=out_of_memory,
            finished_at=self.wall(),
            ports=[],
            pid=0,
            ip="",
        )
        self._tell(container.assignment.instance_id)
        self._wake(container)

    def _drop(self, container: FakeContainer) -> None:
        del self.containers[container.observed.engine_id]
        container.observed = replace(container.observed, state="dead", ports=[], pid=0, ip="")
        self._tell(container.assignment.instance_id)
        self._wake(container)

    def _log(self, container: FakeContainer, stream: int, text: str) -> None:
        last = container.lines[-1].at_ns if container.lines else 0
        container.lines.append(LogLine(max(int(self.wall() * 1e9), last + _LINE_NS), stream, text))
        self._wake(container)

    def _wake(self, container: FakeContainer) -> None:
        changed, container.changed = container.changed, asyncio.Event()
        changed.set()

    def _tell(self, instance_id: str) -> None:
        for queue in self._subscribers:
            queue.put_nowait(EngineEvent(instance_id))


def _within(line: LogLine, since: float | None, until: float | None) -> bool:
    at = line.at_ns / 1e9
    return (since is None or at >= since) and (until is None or at <= until)
