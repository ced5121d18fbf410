"""What keeps every loop alive: a failure costs a delay and a full look, a cancellation ends it."""

import asyncio

import pytest

from coordinator.control.loop import keep
from coordinator.store.errors import StoreError
from shared.kit.backoff import Backoff
from tests.fakes.clock import FakeClock


class Turns:
    """Does what the list says, one entry a turn, then sleeps for ever."""

    def __init__(self, *deeds: Exception | None) -> None:
        self.deeds = list(deeds)
        self.afresh: list[bool] = []
        self.done = asyncio.Event()

    async def __call__(self, afresh: bool) -> None:
        self.afresh.append(afresh)
        if not self.deeds:
            self.done.set()
            await asyncio.Event().wait()
        deed = self.deeds.pop(0)
        if deed is not None:
            raise deed


async def kept(turns: Turns, backoff: Backoff) -> None:
    task = asyncio.create_task(keep("test", turns, backoff=backoff, clock=FakeClock()))
    await asyncio.wait_for(turns.done.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("failure", [StoreError("away"), ValueError("a defect"), TimeoutError()])
async def test_after_a_failure_everything_is_looked_at_again(failure: Exception) -> None:
    turns = Turns(None, None, failure, None)
    await kept(turns, Backoff(base=0.001, ceiling=0.001))
    assert turns.afresh == [True, False, False, True, False]


async def test_failures_in_a_row_are_spaced_out() -> None:
    turns, backoff = Turns(*[ValueError("again")] * 4), Backoff(base=0.001, ceiling=1.0)
    await kept(turns, backoff)
    assert backoff.failures == 4
    assert turns.afresh == [True] * 5


async def test_a_cancellation_during_the_delay_ends_it() -> None:
    failed = asyncio.Event()

    async def fail(_: bool) -> None:
        failed.set()
        raise ValueError("no")

    task = asyncio.create_task(keep("test", fail, backoff=Backoff(base=1000, ceiling=1000, draw=lambda: 1.0)))
    await failed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
