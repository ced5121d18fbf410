"""Procedures of the tests' own, declared in the product's table while a test runs: streams and waits that go on when told to.

They stand where the product's own would, so that every door and the generated types have them too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from coordinator.doors import streams
from coordinator.errors import Conflict, Forbidden, PreconditionFailed
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import View
from coordinator.procedures.table import TABLE, Nothing, Stream, procedure
from shared.spec.container import Part

FAILURES = {"CONFLICT": Conflict, "FORBIDDEN": Forbidden, "PRECONDITION_FAILED": PreconditionFailed}


class Ticks(Part, frozen=True):
    """`fail`: after the last one."""

    count: int
    fail: bool = False
    cursor: str = ""


class Tick(View, frozen=True):
    number: int
    cursor: str


class Echo(Part, frozen=True):
    text: str


class EchoView(View, frozen=True):
    text: str


class Fail(Part, frozen=True):
    code: Literal["CONFLICT", "FORBIDDEN", "PRECONDITION_FAILED"]


class HeldView(View, frozen=True):
    released: bool


class Stage:
    """`waiting`: calls of `test.held`. `begun` and `closed`: streams, the latter for whatever reason."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.waiting = 0
        self.begun = 0
        self.closed = 0
        self._ticks = 1_000_000
        self._changed = asyncio.Event()

    def allow(self, ticks: int) -> None:
        self._ticks = ticks
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, tick: int) -> None:
        while self._ticks < tick:
            await self._changed.wait()

    def is_quiet_for(self, keepalives: int) -> Callable[[], Awaitable[bool]]:
        """A condition to wait for: so many keepalives of the doors are due since a stream has begun."""
        since: float | None = None

        async def passed() -> bool:
            nonlocal since
            if since is None and self.begun:
                since = time.monotonic()
            return since is not None and time.monotonic() - since > keepalives * streams.KEEPALIVE_SECONDS

        return passed

    @contextmanager
    def declared(self) -> Iterator["Stage"]:
        before = set(TABLE)
        try:
            self._declare_calls()
            self._declare_stream()
            yield self
        finally:
            for name in set(TABLE) - before:
                del TABLE[name]

    def _declare_calls(self) -> None:
        @procedure("test.echo", "GET", "own", rest="/test/echo")
        async def echo(context: Context, data: Echo) -> EchoView:
            """What was said."""
            return EchoView(text=data.text)

        @procedure("test.fail", "GET", "own", rest="/test/fail")
        async def fail(context: Context, data: Fail) -> EchoView:
            """Fails."""
            raise FAILURES[data.code]("as asked")

        @procedure("test.broken", "GET", "own", rest="/test/broken")
        async def broken(context: Context, data: Nothing) -> EchoView:
            """Has a defect."""
            raise RuntimeError("secret detail")

        @procedure("test.put", "POST", "own", rest="/test/put")
        async def put(context: Context, data: Echo) -> Nothing:
            """Answers nothing."""
            return Nothing()

        @procedure("test.held", "GET", "own", rest="/test/held")
        async def held(context: Context, data: Nothing) -> HeldView:
            """Waits to be released."""
            self.waiting += 1
            await self.released.wait()
            return HeldView(released=True)

        @procedure("test.release", "POST", "own", rest="/test/release")
        async def release(context: Context, data: Nothing) -> Nothing:
            """Lets go what is held."""
            self.released.set()
            return Nothing()

    def _declare_stream(self) -> None:
        @procedure("test.ticks", "GET", "own", rest="/test/ticks")
        async def ticks(context: Context, data: Ticks) -> Stream[Tick]:
            """Counts."""
            return Stream(self._count(data))

    async def _count(self, data: Ticks) -> AsyncIterator[Tick]:
        self.begun += 1
        try:
            for number in range(int(data.cursor or 0) + 1, data.count + 1):
                await self.until(number)
                yield Tick(number=number, cursor=str(number))
            if data.fail:
                raise PreconditionFailed("as asked")
        finally:
            self.closed += 1
