"""The log broker against nodes that are a list of sent frames."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from coordinator.logs import subscription as subscription_module
from coordinator.logs.broker import LogBroker, LogEvent, LogGap, LogNote, LogQuery, LogSubscription, LogText
from shared.kit.clock import SystemClock
from shared.wire.frames import HubFrame, LogCancel, LogChunk, LogCredit, LogEnd, LogLine, LogSubscribe


@dataclass
class Nodes:
    """A sender that keeps what was sent; nodes in `away` are not connected."""

    away: set[str] = field(default_factory=set)
    sent: list[tuple[str, HubFrame]] = field(default_factory=list)

    def send(self, node_id: str, frame: HubFrame) -> bool:
        if node_id in self.away:
            return False
        self.sent.append((node_id, frame))
        return True

    def of(self, kind: type[LogSubscribe] | type[LogCancel] | type[LogCredit]) -> list[HubFrame]:
        return [frame for _, frame in self.sent if isinstance(frame, kind)]

    def stream(self, instance_id: str) -> LogSubscribe:
        """The newest subscription to this instance."""
        found = [
            frame for _, frame in self.sent if isinstance(frame, LogSubscribe) and frame.instance_id == instance_id
        ]
        return found[-1]


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
async def broker(nodes: Nodes) -> AsyncIterator[LogBroker]:
    broker = LogBroker(SystemClock())
    broker.attach(nodes)
    yield broker
    broker.close()


def chunk(stream_id: str, *times: int, dropped: int = 0, size: int = 0) -> LogChunk:
    return LogChunk(stream_id, [LogLine(at, 1, f"line {at}" + "x" * size) for at in times], dropped, dropped * 10)


async def collect(reader: LogSubscription) -> list[LogEvent]:
    return [event async for event in reader]


def told(events: list[LogEvent]) -> list[object]:
    return [(event.instance_id, event.at_ns) if isinstance(event, LogText) else event for event in events]


async def test_a_read_subscribes_merges_and_ends(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1"), ("i2", "n2")], LogQuery(tail=3)) as reader:
        first, second = nodes.stream("i1"), nodes.stream("i2")
        assert (first.tail, first.follow) == (3, False)
        assert first.credit > 0
        broker.chunk("n1", chunk(first.stream_id, 1, 4))
        broker.chunk("n2", chunk(second.stream_id, 2, 3))
        broker.end("n1", LogEnd(first.stream_id))
        broker.end("n2", LogEnd(second.stream_id))
        assert told(await collect(reader)) == [("i2", 2), ("i2", 3), ("i1", 4)]
    assert nodes.of(LogCancel) == [], "what has ended needs no cancel"


async def test_a_node_that_is_not_connected_is_said_not_passed_over(broker: LogBroker, nodes: Nodes) -> None:
    nodes.away.add("n2")
    async with broker.open([("i1", "n1"), ("i2", "n2")], LogQuery()) as reader:
        broker.chunk("n1", chunk(nodes.stream("i1").stream_id, 1))
        broker.end("n1", LogEnd(nodes.stream("i1").stream_id))
        events = await collect(reader)
    assert isinstance(events[0], LogNote)
    assert (events[0].instance_id, events[0].node_id) == ("i2", "n2")
    assert "not connected" in events[0].message
    assert told(events[1:]) == [("i1", 1)]


async def test_an_error_of_the_node_is_told(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(tail=10)) as reader:
        broker.end("n1", LogEnd(nodes.stream("i1").stream_id, error="the engine container is gone"))
        (event,) = await collect(reader)
    assert isinstance(event, LogNote)
    assert event.message == "the engine container is gone"


async def test_leaving_cancels_the_streams_and_later_chunks_are_refused(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(follow=True)):
        stream = nodes.stream("i1").stream_id
        assert len(broker._subscriptions) == 1
    assert nodes.of(LogCancel) == [LogCancel(stream)]
    assert not broker._subscriptions
    broker.chunk("n1", chunk(stream, 1))
    assert nodes.of(LogCancel) == [LogCancel(stream)] * 2, "the first cancel may have been lost"


async def test_no_reader_no_traffic(broker: LogBroker, nodes: Nodes) -> None:
    broker.joined("n1")
    broker.left("n1")
    assert nodes.sent == []


async def test_followed_lines_arrive_while_they_are_written_and_gaps_are_events(
    broker: LogBroker, nodes: Nodes
) -> None:
    async with broker.open([("i1", "n1")], LogQuery(tail=5, follow=True)) as reader:
        stream = nodes.stream("i1").stream_id
        broker.chunk("n1", chunk(stream, 1))
        assert told([await anext(reader)]) == [("i1", 1)]
        waiting = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        broker.chunk("n1", chunk(stream, 9, dropped=4))
        gap, line = await waiting, await anext(reader)
    assert gap == LogGap(9, "i1", "n1", 4, 40)
    assert told([line]) == [("i1", 9)]


async def test_an_instance_that_appears_later_is_read_too_and_only_once(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(follow=True)) as reader:
        reader.add("i2", "n2")
        reader.add("i2", "n2")
        reader.add("i1", "n1")
        assert len(nodes.of(LogSubscribe)) == 2
        broker.chunk("n2", chunk(nodes.stream("i2").stream_id, 3))
        assert told([await anext(reader)]) == [("i2", 3)]


async def test_a_node_cannot_feed_another_nodes_stream(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(follow=True)) as reader:
        stream = nodes.stream("i1").stream_id
        broker.chunk("evil", chunk(stream, 666))
        broker.end("evil", LogEnd(stream, error="forged"))
        broker.chunk("n1", chunk(stream, 1))
        assert told([await anext(reader)]) == [("i1", 1)]


async def test_credit_is_given_back_as_the_reader_takes_lines_and_not_before(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(follow=True)) as reader:
        opened = nodes.stream("i1")
        count = opened.credit // 1000
        broker.chunk("n1", chunk(opened.stream_id, *range(count), size=1000))
        await asyncio.sleep(0)
        assert nodes.of(LogCredit) == []
        for _ in range(count):
            await anext(reader)
        broker.chunk("n1", chunk(opened.stream_id, count))
        await anext(reader)
        granted = sum(frame.credit for frame in nodes.of(LogCredit) if isinstance(frame, LogCredit))
    assert granted >= opened.credit * 0.45


async def test_a_follower_goes_on_after_its_node_was_away(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(tail=5, follow=True)) as reader:
        old = nodes.stream("i1").stream_id
        broker.chunk("n1", chunk(old, 10**18, 10**18 + 1))
        assert len(told([await anext(reader), await anext(reader)])) == 2
        nodes.away.add("n1")
        broker.left("n1")
        note = await anext(reader)
        assert isinstance(note, LogNote)
        assert "until it is back" in note.message
        nodes.away.clear()
        broker.joined("n1")
        again = nodes.stream("i1")
        assert again.stream_id != old
        assert again.tail is None
        assert again.since == pytest.approx(10**9, abs=0.5)
        broker.chunk("n1", chunk(again.stream_id, 10**18 + 1, 10**18 + 2))
        assert told([await anext(reader)]) == [("i1", 10**18 + 2)], "what was seen before is not shown twice"
        broker.chunk("n1", chunk(old, 7))
        assert LogCancel(old) in nodes.of(LogCancel)


async def test_a_read_whose_node_vanishes_ends_with_a_note(broker: LogBroker, nodes: Nodes) -> None:
    async with broker.open([("i1", "n1")], LogQuery(tail=5)) as reader:
        broker.chunk("n1", chunk(nodes.stream("i1").stream_id, 1))
        broker.left("n1")
        note, line = await collect(reader)
    assert isinstance(note, LogNote)
    assert told([line]) == [("i1", 1)]


async def test_a_node_that_never_answers_is_given_up(
    broker: LogBroker, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "SILENCE_SECONDS", 0.05)
    async with broker.open([("i1", "n1")], LogQuery(tail=5)) as reader:
        (note,) = await collect(reader)
    assert isinstance(note, LogNote)
    assert "did not answer" in note.message
    assert len(nodes.of(LogCancel)) == 1


async def test_closing_the_broker_ends_every_reader(broker: LogBroker) -> None:
    reader = broker.open([("i1", "n1")], LogQuery(follow=True))
    waiting = asyncio.create_task(collect(reader))
    await asyncio.sleep(0)
    broker.close()
    assert await waiting == []


async def test_a_slow_reader_of_many_streams_holds_a_bounded_amount(broker: LogBroker, nodes: Nodes) -> None:
    targets = [(f"i{number}", "n1") for number in range(20)]
    async with broker.open(targets, LogQuery(follow=True)):
        credit = sum(frame.credit for frame in nodes.of(LogSubscribe) if isinstance(frame, LogSubscribe))
    assert credit <= 1024 * 1024
