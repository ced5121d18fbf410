"""What the coordinator should know of this machine, looked at again and again: facts when they change, measures always.

A look reads files and asks a file system, and a disk that hangs would hang whoever looks. So a thread of its own does it, one,
because processor shares are kept per thread; if it hangs, nothing else does.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec

from agent.core.faults import RuntimeFault
from agent.core.observe import Observed
from agent.metrics.facts import collect
from agent.metrics.host import HostSampler
from agent.metrics.instances import InstanceSampler
from agent.runtime.base import EngineFacts, Runtime
from shared.kit.clock import Clock
from shared.kit.wakeup import Wakeup
from shared.spec.node import Engine, HostSample, InstanceSample, NodeFacts
from shared.spec.reason import ENGINE_UNREACHABLE, Reason
from shared.wire.frames import MetricsSample, NodeStatus

SAMPLE_SECONDS = 15.0
_FIRST_ANSWER_SECONDS = 3.0
"""An engine that hangs must not keep the node from its coordinator."""
_FREE_SHARE = 0.05
"""Of the free space: a smaller change is not worth telling."""
_MAX_SAMPLES = 500
"""Of instances in one frame: what fits it however badly it compresses."""

_T = TypeVar("_T")


class Survey:
    """`facts` is what is known now. `address`: where this node's published ports are reached, as far as it is known. `find`
    tells it anew, empty when it cannot; None when the settings say it. `labels` are this node's settings."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        address: str,
        labels: dict[str, str],
        find: Callable[[], str] | None = None,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self.address = address
        self._find = find
        self._labels = labels
        self._engine = EngineFacts(Engine(), "", "")
        self._wakeup = Wakeup()
        self._ask_engine = True
        self._thread = ThreadPoolExecutor(1, "survey")
        self._measure_at = clock.monotonic()
        self._told = self.facts = NodeFacts()

    @property
    def data_root(self) -> str:
        """Where the engine keeps images and volumes, empty while it has not said."""
        return self._engine.data_root

    def engine_changed(self, reason: Reason | None) -> None:
        """Why the engine does not answer; None: it answers again, and may be another version."""
        self._ask_engine = reason is None
        self._engine_reason(reason)
        self._wakeup.wake()

    def measure_now(self) -> None:
        """Somebody who knows nothing yet has begun to listen."""
        self._measure_at = self._clock.monotonic()
        self._wakeup.wake()

    async def first_look(self) -> NodeFacts:
        """Facts to introduce this node with, whether or not its engine answers yet."""
        await self._look()
        self._told = self.facts
        return self.facts

    async def run(
        self, running: Callable[[], Iterable[Observed]], send: Callable[[NodeStatus | MetricsSample], None]
    ) -> None:
        """For ever: measures every `SAMPLE_SECONDS`, facts whenever they changed."""
        host = await self._in_thread(lambda: HostSampler(lambda: self.data_root))
        instances = InstanceSampler()

        def measure(seen: list[Observed], now: float) -> tuple[HostSample, list[InstanceSample]]:
            return host.sample(now), instances.sample(seen, now)

        while True:
            await self._wakeup.wait(self._measure_at - self._clock.monotonic())
            await self._look()
            if differ(self._told, self.facts):
                self._told = self.facts
                send(NodeStatus(self.facts))
            if self._clock.monotonic() >= self._measure_at:
                self._measure_at = self._clock.monotonic() + SAMPLE_SECONDS
                whole, each = await self._in_thread(partial(measure, list(running()), self._clock.wall()))
                for start in range(0, max(1, len(each)), _MAX_SAMPLES):
                    send(MetricsSample(whole, each[start : start + _MAX_SAMPLES]))
                await self._locate()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _locate(self) -> None:
        """A lease, a network or a boot without one changes the address. Last, as names take their time; the next look tells."""
        found = await self._in_thread(self._find) if self._find is not None else ""
        if found and found != self.address:
            self.address = found
            self._wakeup.wake()

    async def _look(self) -> None:
        if self._ask_engine:
            await self._introduce_engine()
        engine = self._engine
        self.facts = await self._in_thread(
            lambda: collect(engine.engine, engine.platform, engine.data_root, address=self.address, labels=self._labels)
        )

    async def _introduce_engine(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_ANSWER_SECONDS):
                self._engine = await self._runtime.facts()
            self._ask_engine = False
        except TimeoutError:
            self._engine_reason(Reason(ENGINE_UNREACHABLE, f"no answer for {_FIRST_ANSWER_SECONDS:g} s"))
        except RuntimeFault as fault:
            self._engine_reason(Reason(fault.code, fault.message))

    def _engine_reason(self, reason: Reason | None) -> None:
        known = self._engine
        engine = msgspec.structs.replace(known.engine, reason=reason)
        self._engine = EngineFacts(engine, known.platform, known.data_root)
        self.facts = msgspec.structs.replace(self.facts, engine=engine)

    async def _in_thread(self, look: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, look)


def differ(told: NodeFacts, now: NodeFacts) -> bool:
    """Whether the coordinator should hear of it. Free space changes all the time; a twentieth of it counts."""
    moved = abs(now.disk_free - told.disk_free) > _FREE_SHARE * told.disk_free
    return moved or msgspec.structs.replace(now, disk_free=told.disk_free) != told
