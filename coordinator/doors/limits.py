"""How often somebody may call: so many reads and writes in each minute of the clock, and so many streams open at a time.

Who has proved who they are is counted by that credential, over all replicas: the minute's permits are taken from a shared row a
tenth at a time, and spent from memory. Strangers are counted by their address, in this process only: what a flood of them costs
must not be a write to the database, so nobody can be made to pay for it by whoever has no account here. Both are kept for the most
recent callers only.
"""

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from coordinator.errors import TooManyRequests
from coordinator.procedures.table import Stream
from coordinator.store import rates
from coordinator.store.database import Store
from coordinator.store.rates import WINDOW_SECONDS, Reserved
from shared.kit.clock import Clock
from shared.kit.network import neighbourhood

STREAM_RETRY_SECONDS = 5
"""When a stream ends is up to its reader: this only keeps a client from trying at once."""
PORTIONS = 10
"""A replica takes this part of the limit at a time: so many writes a minute and caller at most."""
MAX_CALLERS = 20_000

Pace = Literal["read", "write"]


@dataclass(frozen=True)
class Limits:
    """Of one caller; 0: no limit."""

    reads: int = 100
    writes: int = 30
    streams: int = 10


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Quota:
    """What the answer to a call says about the next. `reset`: Unix seconds."""

    limit: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


class Pool(Protocol):
    """Where permits come from."""

    async def reserve(self, key: str, window: int, limit: int) -> Reserved: ...


class OwnPool:
    """For the only process there is: the whole limit belongs to whoever asks first."""

    async def reserve(self, key: str, window: int, limit: int) -> Reserved:
        return Reserved(limit, 0)


class SharedPool:
    """For replicas on one database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def reserve(self, key: str, window: int, limit: int) -> Reserved:
        wanted = max(1, limit // PORTIONS)
        unit = partial(rates.reserve, key=key, window=window, limit=limit, wanted=wanted)
        return await self._store.write(unit)


@dataclass
class _Budget:
    """A caller's permits of one window: `held` here, `left` for anybody when last asked (None: never asked)."""

    window: int
    held: int = 0
    left: int | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Meter:
    """Counts calls against one limit. Callers not seen for longest are forgotten first, with what they held."""

    def __init__(self, kind: str, limit: int, pool: Pool, clock: Clock) -> None:
        self._kind = kind
        self._limit = limit
        self._pool = pool
        self._clock = clock
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()

    async def take(self, caller: str) -> tuple[bool, Quota]:
        """Whether the call may be made. With permits at hand it awaits nothing."""
        while True:
            budget = self._budget(caller)
            if budget.held == 0 and budget.left != 0:
                await self._ask(caller, budget)
                continue  # the minute may have ended meanwhile
            admitted = budget.held > 0
            budget.held -= admitted
            return admitted, self._quota(budget)

    def look(self, caller: str) -> Quota:
        """What `take` would begin with."""
        return self._quota(self._budget(caller))

    async def _ask(self, caller: str, budget: _Budget) -> None:
        """Once for all who wait for it."""
        async with budget.asking:
            if budget.held == 0 and budget.left != 0:
                got = await self._pool.reserve(f"{self._kind}:{caller}", budget.window, self._limit)
                budget.held, budget.left = got.permits, got.left

    def _budget(self, caller: str) -> _Budget:
        window = int(self._clock.wall() // WINDOW_SECONDS)
        budget = self._budgets.get(caller)
        if budget is None or budget.window != window:
            budget = self._budgets[caller] = _Budget(window)
        self._budgets.move_to_end(caller)
        if len(self._budgets) > MAX_CALLERS:
            self._budgets.popitem(last=False)
        return budget

    def _quota(self, budget: _Budget) -> Quota:
        remaining = self._limit if budget.left is None else budget.held + budget.left
        return Quota(self._limit, remaining, (budget.window + 1) * WINDOW_SECONDS)


class Limiter:
    """The limits of everybody, whatever door they come through."""

    def __init__(self, limits: Limits, shared: Pool, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        own = OwnPool()
        rated: dict[Pace, int] = {"read": limits.reads, "write": limits.writes}
        self._known = {pace: Meter(pace, rate, shared, clock) for pace, rate in rated.items() if rate}
        self._strange = {pace: Meter(pace, rate, own, clock) for pace, rate in rated.items() if rate}
        self._open: Counter[str] = Counter()

    async def admit(self, credential: str, address: str, pace: Pace) -> Quota | None:
        """Pays for one call; None where there is no limit. Raises TooManyRequests with the quota as it is."""
        meters = self._known if credential else self._strange
        meter = meters.get(pace)
        if meter is None:
            return None
        admitted, quota = await meter.take(credential or neighbourhood(address))
        if not admitted:
            wait = max(1, math.ceil(quota.reset - self._clock.wall()))
            raise Exceeded(f"{quota.limit} {pace} calls a minute are used up: try again in {wait} s", wait, quota)
        return quota

    def look(self, address: str) -> Quota | None:
        """For answers to what was no call at all."""
        meter = self._strange.get("read")
        return meter.look(neighbourhood(address)) if meter else None

    def counted(self, credential: str, address: str, stream: Stream[Any]) -> Stream[Any]:
        """`stream`, counted until it ends, is closed or is dropped. Raises TooManyRequests."""
        caller = credential or neighbourhood(address)
        if self._limits.streams and self._open[caller] >= self._limits.streams:
            raise TooManyRequests(f"{self._limits.streams} streams are open already: end one", STREAM_RETRY_SECONDS)
        self._open[caller] += 1
        return Stream(_Counted(stream.events, partial(self._ended, caller)))

    def _ended(self, caller: str) -> None:
        self._open[caller] -= 1
        if self._open[caller] == 0:
            del self._open[caller]


class _Counted(AsyncIterator[Any]):
    """Says once that it has ended, however that comes about: a reader that left before the first event never starts a generator,
    so no `finally` inside one would ever run."""

    def __init__(self, events: AsyncIterator[Any], ended: Callable[[], None]) -> None:
        self._events = events
        self._ended: Callable[[], None] | None = ended

    async def __anext__(self) -> Any:
        try:
            return await anext(self._events)
        except BaseException:  # a generator that raised, its end and its cancellation included, is over
            self._end()
            raise

    async def aclose(self) -> None:
        try:
            if hasattr(self._events, "aclose"):
                await self._events.aclose()
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


class Exceeded(TooManyRequests):
    """A refusal that knows the caller's quota."""

    def __init__(self, message: str, retry_after: int, quota: Quota) -> None:
        super().__init__(message, retry_after)
        self.quota = quota
