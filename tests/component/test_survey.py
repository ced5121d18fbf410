"""What a node tells of itself, when, and that an engine in trouble keeps none of it back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import pytest

from agent.survey import Survey, differ
from shared.kit.clock import SystemClock
from shared.spec.node import Engine, NodeFacts
from shared.spec.reason import ENGINE_UNREACHABLE, Reason
from shared.wire.frames import MetricsSample, NodeStatus
from tests.fakes.runtime import FakeRuntime

pytestmark = pytest.mark.timeout(20)
_F = TypeVar("_F", NodeStatus, MetricsSample)


class Told:
    """What was sent, and waiting for more of it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[NodeStatus | MetricsSample] = asyncio.Queue()

    def send(self, frame: NodeStatus | MetricsSample) -> None:
        self.queue.put_nowait(frame)

    async def next_of(self, kind: type[_F]) -> _F:
        while True:
            frame = await self.queue.get()
            if isinstance(frame, kind):
                return frame


@asynccontextmanager
async def surveying(survey: Survey) -> AsyncIterator[Told]:
    told = Told()
    running = asyncio.create_task(survey.run(list, told.send))
    try:
        yield told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        survey.close()


async def test_the_first_look_knows_machine_and_engine() -> None:
    survey = Survey(FakeRuntime(), SystemClock(), "192.0.2.7", {"zone": "nord"})
    facts = await survey.first_look()
    survey.close()
    assert (facts.address, facts.labels) == ("192.0.2.7", {"zone": "nord"})
    assert facts.engine.reason is None
    assert facts.memory_bytes > 0
    assert facts.boot_id


async def test_an_engine_that_is_down_is_a_fact_like_others() -> None:
    runtime = FakeRuntime()
    runtime.go_down()
    survey = Survey(runtime, SystemClock(), "", {})
    facts = await survey.first_look()
    assert facts.engine.reason is not None
    assert facts.engine.reason.code == ENGINE_UNREACHABLE
    assert facts.cpu_millis >= 1000
    async with surveying(survey) as told:
        runtime.come_up()
        survey.engine_changed(None)
        status = await told.next_of(NodeStatus)
        assert status.facts.engine.reason is None
        reason = Reason(ENGINE_UNREACHABLE, "gone again")
        survey.engine_changed(reason)
        assert survey.facts.engine.reason == reason, "a hello in this very moment says it too"
        again = await told.next_of(NodeStatus)
        assert again.facts.engine == Engine(
            status.facts.engine.name, status.facts.engine.version, status.facts.engine.api_version, reason
        ), "what was known of it is still known"


async def test_an_engine_that_hangs_does_not_keep_the_node_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.survey._FIRST_ANSWER_SECONDS", 0.05)
    runtime = FakeRuntime()

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(runtime, "facts", hang)
    survey = Survey(runtime, SystemClock(), "", {})
    facts = await survey.first_look()
    survey.close()
    assert facts.engine.reason is not None
    assert "no answer" in facts.engine.reason.message


async def test_an_address_that_was_not_known_at_the_start_is_found_later() -> None:
    found = ["", "192.0.2.7", ""]
    survey = Survey(FakeRuntime(), SystemClock(), "", {}, lambda: found.pop(0) if found else "")
    assert (await survey.first_look()).address == ""
    async with surveying(survey) as told:
        await told.next_of(MetricsSample)
        survey.measure_now()
        assert (await told.next_of(NodeStatus)).facts.address == "192.0.2.7"
        survey.measure_now()
        await told.next_of(MetricsSample)
        assert survey.address == "192.0.2.7", "nothing found takes nothing away"


async def test_measures_come_at_once_to_who_begins_to_listen() -> None:
    survey = Survey(FakeRuntime(), SystemClock(), "", {})
    await survey.first_look()
    async with surveying(survey) as told:
        first = await told.next_of(MetricsSample)
        survey.measure_now()
        second = await told.next_of(MetricsSample)
        assert second.host.at >= first.host.at
        assert second.host.memory_total > 0


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({}, False),
        ({"disk_free": 1_030}, False),
        ({"disk_free": 1_060}, True),
        ({"disk_free": 940}, True),
        ({"address": "192.0.2.8"}, True),
        ({"engine": Engine(reason=Reason(ENGINE_UNREACHABLE, "down"))}, True),
        ({"labels": {"zone": "sued"}}, True),
    ],
)
def test_what_is_worth_telling(change: dict[str, object], matters: bool) -> None:
    told = NodeFacts(hostname="a", disk_bytes=10_000, disk_free=1_000, labels={"zone": "nord"})
    assert differ(told, msgspec.structs.replace(told, **change)) == matters
    assert differ(NodeFacts(), NodeFacts(disk_free=1)), "from nothing, anything is a change"
