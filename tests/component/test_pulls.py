"""Shared pulls: one for all who need the image, as long as anybody does."""

import asyncio

import pytest

from agent.core.faults import RuntimeFault
from agent.reconcile.pulls import SharedPulls
from shared.spec.instance import InstanceSecrets
from tests.fakes.runtime import FakeRuntime

NONE = InstanceSecrets()


async def begun(engine: FakeRuntime, count: int) -> None:
    async with asyncio.timeout(5):
        while engine.count("pull") < count:
            await asyncio.sleep(0.001)


def nothing(done: int, known: int) -> None:
    pass


async def test_all_who_wait_share_one_pull_and_its_progress() -> None:
    engine = FakeRuntime()
    gate = engine.gates["pull"] = asyncio.Event()
    pulls = SharedPulls(engine, 3)
    heard: list[tuple[str, int]] = []
    waiting = [
        asyncio.create_task(pulls.pull("nginx", NONE, lambda done, known, name=name: heard.append((name, done))))  # type: ignore[misc]
        for name in "ab"
    ]
    await begun(engine, 1)
    gate.set()
    await asyncio.gather(*waiting)
    assert engine.count("pull") == 1
    assert heard == [("a", 500), ("b", 500), ("a", 1000), ("b", 1000)]


async def test_all_who_wait_get_the_fault_and_the_next_tries_anew() -> None:
    engine = FakeRuntime()
    engine.gates["pull"] = asyncio.Event()
    engine.fail("pull", RuntimeFault("image_pull_failed", "no route", temporary=True))
    pulls = SharedPulls(engine, 3)
    waiting = [asyncio.create_task(pulls.pull("nginx", NONE, nothing)) for _ in range(2)]
    await begun(engine, 1)
    engine.gates["pull"].set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeFault, RuntimeFault]
    await pulls.pull("nginx", NONE, nothing)
    assert engine.count("pull") == 2


async def test_a_pull_goes_on_until_the_last_gives_up() -> None:
    engine = FakeRuntime()
    engine.gates["pull"] = asyncio.Event()
    pulls = SharedPulls(engine, 3)
    first, second = (asyncio.create_task(pulls.pull("nginx", NONE, nothing)) for _ in range(2))
    await begun(engine, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert pulls._running
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not pulls._running
    engine.gates["pull"].set()
    await pulls.pull("nginx", NONE, nothing)
    assert engine.images == {"nginx": "sha256:nginx"}


async def test_other_credentials_are_another_pull() -> None:
    engine = FakeRuntime()
    pulls = SharedPulls(engine, 3)
    await asyncio.gather(
        pulls.pull("nginx", InstanceSecrets(username="a", password="x"), nothing),
        pulls.pull("nginx", InstanceSecrets(username="b", password="x"), nothing),
    )
    assert engine.count("pull") == 2


async def test_no_more_than_the_limit_at_once() -> None:
    engine = FakeRuntime()
    gate = engine.gates["pull"] = asyncio.Event()
    pulls = SharedPulls(engine, 3)
    waiting = [asyncio.create_task(pulls.pull(f"image{number}", NONE, nothing)) for number in range(8)]
    await begun(engine, 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.count("pull") == 3
    gate.set()
    await asyncio.gather(*waiting)
    assert engine.count("pull") == 8
