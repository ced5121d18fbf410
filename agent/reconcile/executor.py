"""Carries out actions: parallel across instances, one at a time for each, a worker that lives as long as its action.

A result is not returned, it is written where the next plan looks: into the record and the view. A failure likewise; what to do
about it is the plan's business, and so is when.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

import structlog
from msgspec.structs import replace

from agent.core import history
from agent.core.actions import Action, Create, Pull, Remove, RemoveVolume, Start, Stop, phrase
from agent.core.faults import EngineUnreachable, RuntimeFault, Unanswered
from agent.core.observe import Observed
from agent.core.policy import RefusedByPolicy
from agent.reconcile.memory import Memory
from agent.reconcile.pulls import SharedPulls
from agent.reconcile.view import View
from agent.runtime.base import Runtime
from shared.kit.clock import Clock
from shared.kit.seal import SealError
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec
from shared.spec.quantity import readable_bytes
from shared.spec.reason import DISK_FULL, ENGINE_ERROR, POLICY_REFUSED, SECRETS_UNREADABLE

PARALLEL_PULLS = 3
PARALLEL_STARTS = 4
PARALLEL_REMOVALS = 4
MIN_FREE_BYTES = 256 * 2**20
PROGRESS_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Means:
    """What actions are carried out with. `admit`: what the node's policy lets run, see `agent.core.policy`; raises
    RefusedByPolicy. `unseal` raises SealError. `free_bytes`: left where the engine keeps images, None when nobody can tell."""

    runtime: Runtime
    clock: Clock
    admit: Callable[[InstanceSpec], InstanceSpec]
    unseal: Callable[[Assignment], InstanceSecrets]
    free_bytes: Callable[[], int | None]


@dataclass(frozen=True)
class Listener:
    """`changed`: look at this instance again. `unreachable`: the engine cannot be reached. `doubtful`: it left an action without
    an answer."""

    changed: Callable[[str], None]
    unreachable: Callable[[EngineUnreachable], None]
    doubtful: Callable[[], None]


class Executor:
    def __init__(self, means: Means, view: View, memory: Memory, listener: Listener) -> None:
        self._means = means
        self._view = view
        self._memory = memory
        self._listener = listener
        self._pulls = SharedPulls(means.runtime, PARALLEL_PULLS)
        self._starts = asyncio.Semaphore(PARALLEL_STARTS)
        self._removals = asyncio.Semaphore(PARALLEL_REMOVALS)
        self._workers: dict[str, tuple[Action, asyncio.Task[None]]] = {}
        self._progress: dict[str, tuple[int, int]] = {}
        self._progress_at: dict[str, float] = {}

    @property
    def busy(self) -> Mapping[str, object]:
        """Instances with an action in flight."""
        return self._workers

    def progress(self, instance_id: str) -> tuple[int, int] | None:
        return self._progress.get(instance_id)

    def submit(self, action: Action) -> None:
        name = action.instance_id
        assert name not in self._workers, "the plan leaves busy instances alone"
        self._workers[name] = action, asyncio.create_task(self._work(action), name=f"{phrase(action)} {name}")

    def cancel_pull(self, instance_id: str) -> None:
        """It is no longer wanted. Anything but a pull is short, and undone by what is wanted instead."""
        match self._workers.get(instance_id):
            case (Pull(), task):
                task.cancel()

    async def close(self) -> None:
        """Lets go of everything at once: whatever was half done is seen by the next agent."""
        tasks = [task for _, task in self._workers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, action: Action) -> None:
        name = action.instance_id
        began = self._means.clock.monotonic()
        try:
            await self._carry_out(action)
            took = round((self._means.clock.monotonic() - began) * 1000, 1)
            log.info("done", instance=name, action=phrase(action), ms=took)
        except EngineUnreachable as fault:
            self._failed(action, fault)
            self._listener.unreachable(fault)
        except Unanswered as fault:
            self._failed(action, fault)
            self._listener.doubtful()
        except RuntimeFault as fault:
            self._failed(action, fault)
        except (
            Exception
        ) as error:  # a defect of the agent's own must stop neither this instance for good nor the others
            message = f"the agent failed to {phrase(action)}: {type(error).__name__}"
            self._failed(action, RuntimeFault(ENGINE_ERROR, message, temporary=True))
            log.exception("defect in the agent", instance=name, action=phrase(action))
        finally:
            del self._workers[name]
            self._progress.pop(name, None)
            self._progress_at.pop(name, None)
            self._listener.changed(name)

    def _failed(self, action: Action, fault: RuntimeFault) -> None:
        name = action.instance_id
        log.warning("action failed", instance=name, action=phrase(action), code=fault.code, error=fault.message)
        now = self._means.clock.wall()
        self._memory.put(name, history.faulted(self._memory.get(name), action, fault, now))

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Pull():
                await self._pull(action)
            case Create():
                await self._create(action)
            case Start():
                await self._start(action)
            case Stop():
                await self._stop(action)
            case Remove():
                await self._remove(action)
            case RemoveVolume():
                async with self._removals:
                    await self._means.runtime.remove_volume(action.volume)
                self._remember(action, lambda record: history.volume_removed(record, action.volume))
            case _:
                assert_never(action)

    async def _pull(self, action: Pull) -> None:
        name, image = action.instance_id, action.spec.image
        await self._admitted(action.spec)
        if await self._means.runtime.image_id(image) is None:
            secrets = self._secrets(action.assignment)
            await self._check_disk(image)
            self._remember(action, history.pulling)
            self._listener.changed(name)
            await self._pulls.pull(image, secrets, lambda done, known: self._pulled_so_far(name, done, known))
        self._remember(action, history.pulled)

    async def _create(self, action: Create) -> None:
        name = action.instance_id
        assignment = replace(action.assignment, spec=await self._admitted(action.spec))
        secrets = self._secrets(assignment)
        async with self._starts:
            engine_id = await self._means.runtime.create(assignment, secrets)
        self._remember(action, lambda record: history.created(record, engine_id))
        made = Observed(engine_id, name, action.assignment.spec_hash, "created")
        self._view.put(name, made, looked=self._view.tick())

    async def _start(self, action: Start) -> None:
        await self._admitted(action.spec)
        async with self._starts:
            await self._means.runtime.start(action.engine_id)
        looked = self._view.tick()
        seen = await self._means.runtime.inspect(action.engine_id)
        # Both only now: a start whose inspection failed is not a running instance, and is simply started again.
        self._remember(action, lambda record: history.started(record, action.engine_id))
        self._view.put(action.instance_id, seen, looked)

    async def _stop(self, action: Stop) -> None:
        await self._means.runtime.stop(action.engine_id, action.grace)
        looked = self._view.tick()
        seen = await self._means.runtime.inspect(action.engine_id)
        self._remember(action, history.stopped)
        self._view.put(action.instance_id, seen, looked)

    async def _remove(self, action: Remove) -> None:
        async with self._removals:
            await self._means.runtime.remove(action.engine_id)
        self._remember(action, history.removed)
        self._view.put(action.instance_id, None, looked=self._view.tick())

    def _remember(self, action: Action, change: Callable[[history.History], history.History]) -> None:
        name = action.instance_id
        self._memory.put(name, change(self._memory.get(name)))

    async def _admitted(self, spec: InstanceSpec) -> InstanceSpec:
        """At every step and not once: the policy may have become stricter since, and a link may lead elsewhere."""
        try:
            if any(volume.host for volume in spec.volumes):  # asks a file system, which may hang
                return await asyncio.to_thread(self._means.admit, spec)
            return self._means.admit(spec)
        except RefusedByPolicy as refused:
            raise RuntimeFault(POLICY_REFUSED, str(refused), temporary=False) from refused

    def _secrets(self, assignment: Assignment) -> InstanceSecrets:
        if assignment.spec is None or not assignment.spec.sealed:
            return InstanceSecrets()
        try:
            return self._means.unseal(assignment)
        except SealError as error:
            message = f"its secrets cannot be opened by this node: {error}"
            raise RuntimeFault(SECRETS_UNREADABLE, message, temporary=False) from error

    async def _check_disk(self, image: str) -> None:
        free = await asyncio.to_thread(self._means.free_bytes)
        if free is not None and free < MIN_FREE_BYTES:
            message = (
                f"{readable_bytes(free)} are free where the engine keeps images,"
                f" {image} is pulled only with {readable_bytes(MIN_FREE_BYTES)}"
            )
            raise RuntimeFault(DISK_FULL, message, temporary=True)

    def _pulled_so_far(self, instance_id: str, done: int, known: int) -> None:
        self._progress[instance_id] = done, known
        now = self._means.clock.monotonic()
        if now - self._progress_at.get(instance_id, float("-inf")) >= PROGRESS_SECONDS:
            self._progress_at[instance_id] = now
            self._listener.changed(instance_id)
