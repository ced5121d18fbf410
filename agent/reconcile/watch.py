"""Keeps the view true: subscribe, then list, then follow; list again every 30 seconds whatever the events said.

Events are only hints. One about an instance the executor is working on waits for it, and is dropped when the executor looked after
the event came: on the common path nothing is inspected twice. While the engine does not answer, the view keeps what was last
seen; that it is old is the node's status, not the instances'.
"""

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass

import structlog

from agent.core.faults import EngineUnreachable, RuntimeFault
from agent.reconcile.view import View
from agent.runtime.base import Runtime
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock
from shared.kit.together import together
from shared.kit.wakeup import DirtySet
from shared.spec.reason import Reason

RESYNC_SECONDS = 30.0
MANY = 4
"""More instances to look at than this: one list is cheaper."""
RETRY_CEILING = 5.0
"""Seconds between tries to reach the engine: it is on this machine, and instances wait for it."""
_EVERYTHING = ""

log = structlog.get_logger()


class _SubscriptionEndedError(Exception):
    """The engine closed the event stream, which it does when it stops."""


@dataclass(frozen=True)
class Audience:
    """`changed`: these were looked at. `listed`: everything was. `interrupted`: for a while nobody
    looked, whatever ended meanwhile. `engine`: why it does not answer, None when it does again."""

    changed: Callable[[str], None]
    listed: Callable[[], None]
    interrupted: Callable[[], None]
    engine: Callable[[Reason | None], None]


class Watch:
    def __init__(self, runtime: Runtime, clock: Clock, view: View, busy: Container[str], audience: Audience) -> None:
        self._runtime = runtime
        self._clock = clock
        self._view = view
        self._busy = busy
        self._audience = audience
        self._dirty = DirtySet()
        self._events: dict[str, int] = {}
        self.up = False
        self.reason: Reason | None = None

    def settled(self, instance_id: str) -> None:
        """The executor is done with it: events that came meanwhile are looked into now."""
        if instance_id in self._events:
            self._dirty.add(instance_id)

    def unreachable(self, fault: RuntimeFault) -> None:
        """An action met an engine that does not answer. The next list tells whether it is back."""
        self._down(fault)
        self._dirty.add(_EVERYTHING)

    def doubtful(self) -> None:
        """An action got no answer. Whether it is the engine that is in trouble, a list decides."""
        self._dirty.add(_EVERYTHING)

    async def run(self) -> None:
        backoff = Backoff(base=0.25, ceiling=RETRY_CEILING, healthy_after=RETRY_CEILING)
        while True:
            began = self._clock.monotonic()
            try:
                await self._follow()
            except* RuntimeFault as group:
                self._down(_first(group))
            except* _SubscriptionEndedError:
                log.info("event subscription ended, subscribing again")
                self._audience.interrupted()
            backoff.settled(self._clock.monotonic() - began)
            await asyncio.sleep(backoff.next_delay())

    async def _follow(self) -> None:
        await together(self._listen(), self._refresh())

    async def _listen(self) -> None:
        async for event in self._runtime.events():
            if event.instance_id is not None:
                self._events[event.instance_id] = self._view.tick()
            self._dirty.add(event.instance_id or _EVERYTHING)
        raise _SubscriptionEndedError

    async def _refresh(self) -> None:
        while True:
            names = await self._dirty.take(RESYNC_SECONDS)
            if not names or _EVERYTHING in names or len(names) > MANY:
                await self._list()
                continue
            for name in sorted(names):
                await self._look(name)

    async def _look(self, name: str) -> None:
        event = self._events.get(name, 0)
        if name in self._busy:
            return  # `settled` brings it back
        self._events.pop(name, None)
        if self._view.looked_since(name, event):
            return
        known = self._view.observed.get(name)
        if known is None:
            await self._list()  # somebody else's doing: only a list knows its engine id
            return
        looked = self._view.tick()
        try:
            seen = await self._runtime.inspect(known.engine_id)
        except EngineUnreachable:
            raise
        except RuntimeFault:
            await self._list()  # one that cannot be inspected says nothing of the engine
            return
        self._view.offer(name, seen, looked)
        self._audience.changed(name)

    async def _list(self) -> None:
        looked = self._view.tick()
        found = await self._runtime.observe()
        self._view.offer_all(found, looked)
        for name in [name for name, event in self._events.items() if event < looked and name not in self._busy]:
            del self._events[name]
        self._recovered()
        self._audience.listed()

    def _recovered(self) -> None:
        if self.up:
            return
        self.up, self.reason = True, None
        log.info("engine answers", engine_containers=len(self._view.observed))
        self._audience.engine(None)

    def _down(self, fault: RuntimeFault) -> None:
        reason = Reason(fault.code, fault.message)
        if self.up or self.reason != reason:
            self.up, self.reason = False, reason
            log.warning("engine does not answer", error=fault.message)
            self._audience.interrupted()
            self._audience.engine(reason)


def _first(group: BaseExceptionGroup[RuntimeFault]) -> RuntimeFault:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
