"""The dirty set: whoever takes from it sleeps until there is something to take."""

import asyncio

from shared.kit.wakeup import DirtySet


async def test_a_take_after_one_that_did_not_wait_waits() -> None:
    dirty = DirtySet()
    dirty.add("a")
    assert await dirty.take() == {"a"}
    taking = asyncio.create_task(dirty.take(60))
    done, _ = await asyncio.wait([taking], timeout=0.05)
    assert not done, "nothing was added since"
    dirty.add("b", "c")
    assert await taking == {"b", "c"}


async def test_an_empty_take_ends_in_time() -> None:
    dirty = DirtySet()
    dirty.add("a")
    await dirty.take()
    async with asyncio.timeout(10):
        assert await dirty.take(0.01) == set()
        assert await dirty.take(0) == set()
