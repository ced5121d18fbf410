"""Rate limits: replicas that share one database give out together what one alone would, and streams count while they are open."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from msgspec import Struct
from sqlalchemy import func, select

from coordinator.doors.limits import MAX_CALLERS, Exceeded, Limiter, Limits, Meter, OwnPool, SharedPool
from coordinator.errors import TooManyRequests
from coordinator.procedures.table import Stream
from coordinator.store import rates
from coordinator.store.database import Store
from coordinator.store.tables import rate_window
from shared.kit.network import neighbourhood
from tests.fakes.clock import FakeClock

LIMITS = Limits(reads=100, writes=30, streams=2)


def shared(store: Store, clock: FakeClock, limits: Limits = LIMITS) -> Limiter:
    return Limiter(limits, SharedPool(store), clock)


async def admitted(limiter: Limiter, calls: int, credential: str = "tok_1") -> int:
    """How many of so many calls at once are let through."""
    results = await asyncio.gather(
        *(limiter.admit(credential, "192.0.2.1", "read") for _ in range(calls)), return_exceptions=True
    )
    refused = [one for one in results if isinstance(one, BaseException)]
    assert all(isinstance(one, Exceeded) for one in refused)
    return calls - len(refused)


@pytest.mark.parametrize("calls", [40, 60, 300])
async def test_replicas_admit_together_what_the_limit_says(store: Store, calls: int) -> None:
    clock = FakeClock()
    first, second = shared(store, clock), shared(store, clock)
    both = await asyncio.gather(admitted(first, calls), admitted(second, calls))
    assert sum(both) <= 100
    if 2 * calls >= 120:  # whatever one of them holds and does not need is less than a portion
        assert sum(both) > 90
    if calls == 300:
        assert sum(both) == 100


async def test_one_replica_gets_every_permit_the_others_have_not_taken(store: Store) -> None:
    clock = FakeClock()
    first, second = shared(store, clock), shared(store, clock)
    assert await admitted(first, 1) == 1  # holds nine more
    assert await admitted(second, 200) == 90
    assert await admitted(first, 200) == 9


async def test_permits_at_hand_cost_no_access_to_the_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = shared(store, FakeClock())
    await limiter.admit("tok_1", "", "read")
    used: list[str] = []

    def noting(name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            used.append(name)
            return genuine(*args)

        return noted

    for name in ("write", "read"):
        monkeypatch.setattr(store, name, noting(name, getattr(store, name)))
    for _ in range(9):
        await limiter.admit("tok_1", "", "read")
    assert used == []
    await limiter.admit("tok_1", "", "read")
    assert used == ["write"]


async def test_the_next_minute_begins_anew(store: Store) -> None:
    clock = FakeClock(wall=1_700_000_040.0)
    limiter = shared(store, clock)
    assert await admitted(limiter, 120) == 100
    with pytest.raises(Exceeded) as refused:
        await limiter.admit("tok_1", "", "read")
    assert refused.value.retry_after == 60
    assert refused.value.quota.headers() == {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1700000100",
    }
    clock.advance(60)
    assert await admitted(limiter, 120) == 100


async def test_a_replica_whose_clock_is_behind_does_not_open_the_minute_again(store: Store) -> None:
    ahead, behind = FakeClock(wall=1_700_000_100.0), FakeClock(wall=1_700_000_099.0)
    assert await admitted(shared(store, ahead), 200) == 100
    assert await admitted(shared(store, behind), 200) == 0
    assert await admitted(shared(store, ahead), 200) == 0


async def test_callers_and_kinds_of_call_are_counted_apart(store: Store) -> None:
    limiter = shared(store, FakeClock())
    assert await admitted(limiter, 100) == 100
    assert await admitted(limiter, 100, "tok_2") == 100
    quota = await limiter.admit("tok_1", "", "write")
    assert quota is not None
    assert (quota.limit, quota.remaining) == (30, 29)


async def test_what_remains_is_told_exactly(store: Store) -> None:
    limiter = shared(store, FakeClock())
    told = [await limiter.admit("tok_1", "", "write") for _ in range(30)]
    assert [one.remaining for one in told if one] == list(range(29, -1, -1))


async def test_strangers_cost_no_row_and_no_more_than_so_much_memory(store: Store) -> None:
    limiter = shared(store, FakeClock())
    for index in range(200):
        await limiter.admit("", f"192.0.2.{index}", "read")
    async with store.read() as conn:
        assert (await conn.execute(select(func.count()).select_from(rate_window))).scalar() == 0


async def test_a_meter_forgets_whom_it_has_not_seen_for_longest() -> None:
    meter = Meter("read", 2, OwnPool(), FakeClock())
    for index in range(MAX_CALLERS + 10):
        await meter.take(str(index))
    assert len(meter._budgets) == MAX_CALLERS
    assert meter.look(str(MAX_CALLERS + 9)).remaining == 1
    assert meter.look("0").remaining == 2


async def test_no_limit_asks_nobody(store: Store) -> None:
    limiter = shared(store, FakeClock(), Limits(reads=0, writes=0, streams=0))
    assert await limiter.admit("tok_1", "", "read") is None
    assert limiter.look("192.0.2.1") is None
    opened = [limiter.counted("tok_1", "", Stream(ticks())) for _ in range(50)]
    assert len(opened) == 50


async def test_rows_of_past_minutes_are_forgotten(store: Store) -> None:
    clock = FakeClock()
    limiter = shared(store, clock)
    await limiter.admit("tok_1", "", "read")
    clock.advance(60)
    await limiter.admit("tok_2", "", "read")

    await store.write(partial(rates.forget, before=clock.wall()))
    async with store.read() as conn:
        assert (await conn.execute(select(rate_window.c.key))).scalars().all() == ["read:tok_2"]


def test_of_ipv6_the_network_counts() -> None:
    assert neighbourhood("2001:db8:1:2:3:4:5:6") == neighbourhood("2001:db8:1:2::9") == "2001:db8:1:2::"
    assert neighbourhood("192.0.2.7") == "192.0.2.7"
    assert neighbourhood("") == ""


class Tick(Struct):
    number: int


async def ticks() -> AsyncIterator[Tick]:
    for number in range(2):
        yield Tick(number)


def two_open(store: Store) -> tuple[Limiter, list[Stream[Any]]]:
    limiter = shared(store, FakeClock())
    opened = [limiter.counted("tok_1", "", Stream(ticks())) for _ in range(2)]
    with pytest.raises(TooManyRequests, match="2 streams"):
        limiter.counted("tok_1", "", Stream(ticks()))
    limiter.counted("tok_2", "", Stream(ticks()))
    return limiter, opened


async def test_a_stream_that_ends_makes_room(store: Store) -> None:
    limiter, opened = two_open(store)
    assert [one async for one in opened[0].events] == [Tick(0), Tick(1)]
    limiter.counted("tok_1", "", Stream(ticks()))


async def test_a_stream_that_is_closed_makes_room_once(store: Store) -> None:
    limiter, opened = two_open(store)
    closing: Any = opened[0].events
    await anext(closing)
    await closing.aclose()
    await closing.aclose()
    kept = limiter.counted("tok_1", "", Stream(ticks()))
    with pytest.raises(TooManyRequests):
        limiter.counted("tok_1", "", Stream(ticks()))
    assert kept


async def test_a_stream_nobody_ever_read_makes_room_when_it_is_dropped(store: Store) -> None:
    limiter, opened = two_open(store)
    opened.pop()
    limiter.counted("tok_1", "", Stream(ticks()))
    opened.clear()
    assert not limiter._open
