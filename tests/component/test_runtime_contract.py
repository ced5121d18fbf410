"""The fake runtime keeps the contract, so tests against it mean something; and fails when it is told to."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.core.faults import EngineUnreachable, RuntimeFault
from shared.spec import reason
from tests.component.runtime_contract import (
    ANSWERING,
    FAILING,
    HANGING,
    MISSING,
    NO_SECRETS,
    SPEAKING,
    STEADY,
    Bench,
    RuntimeContract,
)
from tests.fakes.runtime import STDERR, STDOUT, FakeRuntime, Program


@pytest.fixture
def fake() -> FakeRuntime:
    fake = FakeRuntime(address="10.0.0.1")
    fake.images["busybox:1"] = "sha256:busybox"
    fake.missing_images.add("absent:1")
    fake.programs = {
        tuple(SPEAKING): Program(((STDOUT, "one"), (STDERR, "two"), (STDOUT, "three"))),
        tuple(FAILING): Program(exit_code=3),
        tuple(MISSING): Program(executable=False),
    }
    fake.executions = {tuple(ANSWERING): (4, "fine\n"), tuple(HANGING): None}
    return fake


@pytest.fixture
async def bench(fake: FakeRuntime) -> AsyncIterator[Bench]:
    bench = Bench(fake, "busybox:1", "pullable:1", "absent:1")
    yield bench
    fake.come_up()
    await bench.tidy()


class TestFakeRuntime(RuntimeContract):
    async def test_faults_on_demand(self, bench: Bench, fake: FakeRuntime) -> None:
        assignment = bench.assignment(STEADY)
        fake.fail("start", RuntimeFault(reason.DISK_FULL, "full", temporary=True), subject=assignment.instance_id)
        engine_id = await bench.create(assignment)
        with pytest.raises(RuntimeFault, match="full"):
            await bench.runtime.start(engine_id)
        await bench.runtime.start(engine_id)
        assert fake.count("start", assignment.instance_id) == 2

    async def test_an_engine_that_is_down_breaks_calls_and_events(self, bench: Bench, fake: FakeRuntime) -> None:
        events = bench.runtime.events()
        await anext(events)
        fake.go_down()
        with pytest.raises(EngineUnreachable):
            await anext(events)
        with pytest.raises(EngineUnreachable):
            await bench.runtime.observe()

    async def test_a_gate_holds_calls(self, bench: Bench, fake: FakeRuntime) -> None:
        fake.gates["pull"] = asyncio.Event()
        pulling = asyncio.create_task(bench.runtime.pull("pullable:1", NO_SECRETS, lambda _done, _known: None))
        await asyncio.sleep(0)
        assert await bench.runtime.image_id("pullable:1") is None
        fake.gates["pull"].set()
        await pulling
        assert await bench.runtime.image_id("pullable:1") is not None

    async def test_what_happens_behind_the_agents_back(self, bench: Bench, fake: FakeRuntime) -> None:
        assignment = bench.assignment(STEADY)
        engine_id = await bench.create(assignment)
        await bench.runtime.start(engine_id)
        fake.crash(assignment.instance_id, 137, out_of_memory=True)
        crashed = await bench.seen(engine_id)
        assert (crashed.state, crashed.exit_code, crashed.out_of_memory) == ("exited", 137, True)
        fake.vanish(assignment.instance_id)
        assert await bench.runtime.inspect(engine_id) is None
