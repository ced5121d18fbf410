"""`together`: what a failing part leaves behind, above all on a Python whose task groups leave too much."""

import asyncio
import gc

import pytest

from shared.kit.together import together
from shared.kit.wakeup import Wakeup


async def failing(after: asyncio.Event | None = None) -> None:
    if after is not None:
        await after.wait()
    raise ValueError("on purpose")


async def lasting(begun: asyncio.Event, ended: list[str]) -> None:
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def test_the_first_failure_takes_the_others_along() -> None:
    begun, ended = asyncio.Event(), list[str]()
    with pytest.raises(ExceptionGroup) as raised:
        await together(lasting(begun, ended), failing(begun))
    assert raised.group_contains(ValueError)
    assert ended == ["ended"]


async def test_time_limits_work_afterwards() -> None:
    """With a bare group on Python 3.11, this wait ends the test's task."""
    with pytest.raises(ExceptionGroup):
        await together(failing(), asyncio.sleep(60))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await Wakeup().wait(0.01) is False


async def test_cancelling_reaches_every_part() -> None:
    begun, ended = asyncio.Event(), list[str]()
    task = asyncio.create_task(together(lasting(begun, ended), lasting(asyncio.Event(), ended)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended", "ended"]


async def test_cancelling_before_the_parts_began_leaves_none_behind() -> None:
    """A coroutine that nobody awaited would be a warning, and so a failure."""
    running = asyncio.create_task(together(failing(), failing()))
    asyncio.get_running_loop().call_soon(running.cancel)
    await asyncio.wait([running])
    assert running.cancelled()
    gc.collect()
