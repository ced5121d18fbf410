"""Running health checks: one task per instance that has one, asking when `agent.core.health` says so.

Only the sockets and the waiting are here. A probe the engine could not carry out says nothing about the instance and is not
counted: an engine that restarts must not turn every instance unhealthy.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from agent.core.faults import RuntimeFault
from agent.core.health import HealthState, begin, observe
from agent.core.observe import Observed
from agent.probes.exec import Executor, probe_exec
from agent.probes.failure import ProbeFailed
from agent.probes.http import probe_http
from agent.probes.targets import Target, targets
from agent.probes.tcp import probe_tcp
from shared.kit.clock import Clock
from shared.spec.container import HealthCheck
from shared.spec.instance import Assignment, InstanceSpec

log = structlog.get_logger()

PROBES_AT_ONCE = 32
SLOT_SECONDS = 5.0
"""Of a probe that takes longer the slot goes on to the next: checks that hang must not keep the others from being asked."""


@dataclass
class _Watch:
    spec: InstanceSpec
    observed: Observed
    state: HealthState
    task: asyncio.Task[None] | None = None
    preferred: int = 0
    """Which target is asked: the first until it proves out of reach; for good once one has answered."""
    ended: bool = False


class Prober:
    """`changed` is called with the instance's id whenever its HealthState says something new. `direct` False: the engine runs on
    another machine, so containers are reached by their published ports only. Times in a HealthState are monotonic."""

    def __init__(
        self, executor: Executor, clock: Clock, changed: Callable[[str], None], *, direct: bool = True
    ) -> None:
        self._executor = executor
        self._clock = clock
        self._changed = changed
        self._direct = direct
        self._watches: dict[str, _Watch] = {}
        self._slots = asyncio.Semaphore(PROBES_AT_ONCE)
        self._ending: set[asyncio.Task[None]] = set()

    def watch(self, assignment: Assignment, observed: Observed) -> None:
        """Begin, or go on when it is watched already; a new start of the engine container begins anew."""
        spec = assignment.spec
        assert spec is not None, "a tombstone has no health"
        known = self._watches.get(assignment.instance_id)
        if known is not None and _same_run(known.observed, observed):
            if observed.started_at is not None:
                known.observed = observed  # ports and address may have become known meanwhile
            return
        self.forget(assignment.instance_id)
        watch = _Watch(spec, observed, begin(spec.health_check, self._started_at(observed)))
        self._watches[assignment.instance_id] = watch
        if spec.health_check is not None:
            probing = self._probe_on(assignment.instance_id, watch, spec.health_check)
            watch.task = asyncio.create_task(probing, name=f"probe {assignment.instance_id}")

    def forget(self, instance_id: str) -> None:
        watch = self._watches.pop(instance_id, None)
        if watch is None or watch.task is None:
            return
        watch.ended = True
        watch.task.cancel()
        self._ending.add(watch.task)
        watch.task.add_done_callback(self._ending.discard)

    def health(self, instance_id: str) -> HealthState | None:
        watch = self._watches.get(instance_id)
        return watch.state if watch else None

    async def close(self) -> None:
        """Returns when nothing of it runs any more."""
        for instance_id in list(self._watches):
            self.forget(instance_id)
        if self._ending:
            await asyncio.wait(self._ending)

    def _started_at(self, observed: Observed) -> float:
        """On the monotonic clock: an agent that restarts goes on with the start period of what it finds running."""
        now = self._clock.monotonic()
        return now if observed.started_at is None else now - max(0.0, self._clock.wall() - observed.started_at)

    async def _probe_on(self, instance_id: str, watch: _Watch, check: HealthCheck) -> None:
        while watch.state.next_probe_at is not None:
            await asyncio.sleep(watch.state.next_probe_at - self._clock.monotonic())
            async with self._slot():
                outcome = await self._probe(watch, check)
            if outcome is None:
                await asyncio.sleep(check.interval)
                continue
            before = watch.state
            watch.state = observe(before, check, not outcome, self._clock.monotonic(), outcome)
            if not watch.ended and _news(before, watch.state):
                self._changed(instance_id)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        await self._slots.acquire()
        held = [self._slots]

        def release() -> None:
            if held:
                held.pop().release()

        timer = asyncio.get_running_loop().call_later(SLOT_SECONDS, release)
        try:
            yield
        finally:
            timer.cancel()
            release()

    async def _probe(self, watch: _Watch, check: HealthCheck) -> str | None:
        """Empty when it passed, else why not; None when nothing could be found out."""
        try:
            if check.type == "exec":
                await probe_exec(self._executor, watch.observed.engine_id, check.command, check.timeout)
            else:
                await self._knock(watch, check)
        except ProbeFailed as failed:
            return failed.message
        except RuntimeFault as fault:
            return None if fault.temporary else fault.message
        except Exception:  # a fault of ours must not end the probing, nor count against the instance
            log.exception("a probe could not be carried out", instance=watch.observed.instance_id)
            return None
        return ""

    async def _knock(self, watch: _Watch, check: HealthCheck) -> None:
        candidates = targets(watch.spec, check, watch.observed, direct=self._direct)
        if not candidates:
            raise ProbeFailed("its port cannot be reached from the agent: it is not published")
        try:
            await _ask(candidates[watch.preferred % len(candidates)], check)
        except ProbeFailed as failed:
            if not failed.reached and not watch.state.passed_once:
                watch.preferred += 1
            raise


async def _ask(target: Target, check: HealthCheck) -> None:
    if check.type == "http":
        await probe_http(target.host, target.port, check.path, check.timeout)
    else:
        await probe_tcp(target.host, target.port, check.timeout)


def _same_run(known: Observed, seen: Observed) -> bool:
    """An engine in trouble lists without times: then nothing says it was started anew."""
    return known.engine_id == seen.engine_id and seen.started_at in (None, known.started_at)


def _news(before: HealthState, after: HealthState) -> bool:
    return (before.health, before.stuck, before.last_error) != (after.health, after.stuck, after.last_error)
