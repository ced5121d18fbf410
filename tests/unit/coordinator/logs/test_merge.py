"""Merging without I/O: order, tails, and what a reader's slowness may hold."""

import random

import pytest

from coordinator.logs.events import LogGap, LogText
from coordinator.logs.merge import OPENING_SECONDS, REORDER_SECONDS, Live, Merge, Tail, Whole
from coordinator.logs.source import Source
from shared.kit.clock import iso
from shared.wire.credit import line_cost
from shared.wire.frames import LogChunk, LogLine


def source(name: str, window: int = 1 << 20) -> Source:
    return Source(f"s_{name}", f"i_{name}", f"n_{name}", window, heard_at=0.0)


def feed(merge: Merge, origin: Source, *times: int, now: float = 0.0, dropped: int = 0) -> None:
    chunk = LogChunk(origin.stream_id, [LogLine(at, 1, f"{origin.instance_id}:{at}") for at in times], dropped, dropped)
    for event, cost in origin.receive(chunk, now):
        merge.add(origin, event, cost, now)


def drain(merge: Merge, sources: list[Source], now: float = 0.0) -> list[str]:
    found = []
    while (event := merge.next(sources, now)) is not None:
        found.append(event.text if isinstance(event, LogText) else f"gap {event.lines}")
    return found


def test_whole_streams_go_out_in_order_only_as_far_as_every_stream_is_known() -> None:
    a, b = source("a"), source("b")
    merge = Whole()
    feed(merge, a, 1, 4, 6)
    assert drain(merge, [a, b]) == [], "b may still have an earlier line"
    feed(merge, b, 2, 3)
    assert drain(merge, [a, b]) == ["i_a:1", "i_b:2", "i_b:3"]
    b.ended = True
    assert drain(merge, [a, b]) == ["i_a:4", "i_a:6"]
    assert merge.empty
    assert a.held == b.held == 0


@pytest.mark.parametrize("seed", range(20))
def test_whole_is_a_sort_however_chunks_interleave(seed: int) -> None:
    rng = random.Random(seed)
    sources = [source(str(number)) for number in range(4)]
    remaining = {each.stream_id: sorted(rng.randrange(1000) for _ in range(rng.randrange(30))) for each in sources}
    expected = sorted(at for times in remaining.values() for at in times)
    merge, got = Whole(), []
    while any(not each.ended for each in sources):
        each = rng.choice([each for each in sources if not each.ended])
        times, cut = remaining[each.stream_id], rng.randrange(1, 5)
        feed(merge, each, *times[:cut])
        remaining[each.stream_id] = times[cut:]
        each.ended = not remaining[each.stream_id]
        got += drain(merge, sources)
    assert [int(text.split(":")[1]) for text in got] == expected


def test_a_tail_is_the_last_lines_of_all_streams_together() -> None:
    a, b = source("a"), source("b")
    merge = Tail(3)
    feed(merge, a, 1, 5, 9)
    feed(merge, b, 2, 6, 7)
    assert a.held == b.held == 0, "collected lines hold no credit back"
    a.ended = True
    assert drain(merge, [a, b]) == []
    b.ended = True
    assert drain(merge, [a, b]) == ["i_b:6", "i_b:7", "i_a:9"]
    assert merge.empty


def test_a_tail_announces_what_the_node_dropped() -> None:
    a = source("a")
    merge = Tail(10)
    feed(merge, a, 1, 2, dropped=7)
    a.ended = True
    assert drain(merge, [a]) == ["gap 7", "i_a:1", "i_a:2"]


def test_live_lines_rest_a_moment_and_go_out_by_timestamp() -> None:
    a, b = source("a"), source("b")
    merge = Live(None, 0.0)
    feed(merge, a, 10, now=0.0)
    feed(merge, b, 5, now=0.1)
    assert drain(merge, [a, b], 0.1) == []
    assert merge.due() == pytest.approx(REORDER_SECONDS)
    assert drain(merge, [a, b], REORDER_SECONDS) == ["i_b:5", "i_a:10"], "the later arrival is the earlier line"
    assert merge.empty
    assert merge.due() is None


def test_a_single_live_stream_waits_for_nobody() -> None:
    a = source("a")
    merge = Live(5, 0.0)
    feed(merge, a, 1, 2, now=0.0)
    assert drain(merge, [a], 0.0) == ["i_a:1", "i_a:2"]


def test_the_tails_of_several_live_streams_are_cut_to_one() -> None:
    a, b = source("a"), source("b")
    merge = Live(2, 0.0)
    feed(merge, a, 1, 3, now=0.05)
    feed(merge, b, 2, 4, now=0.1)
    assert drain(merge, [a, b], 0.2) == []
    assert merge.due() == OPENING_SECONDS
    assert drain(merge, [a, b], OPENING_SECONDS) == ["i_a:3", "i_b:4"]
    assert a.held == b.held == 0, "what was cut is given back as credit"
    feed(merge, a, 9, now=1.0)
    assert drain(merge, [a, b], 1.0 + REORDER_SECONDS) == ["i_a:9"]


def test_lines_beyond_a_tail_are_news_and_never_cut() -> None:
    a, b = source("a"), source("b")
    merge = Live(1, 0.0)
    feed(merge, a, 1, 2, 3, now=0.0)
    feed(merge, b, 4, now=0.0)
    assert drain(merge, [a, b], 1.0) == ["i_a:2", "i_a:3", "i_b:4"]


def test_an_agent_that_ignores_its_credit_loses_lines_and_the_loss_is_counted() -> None:
    a = source("a", window=1000)
    merge = Live(None, 0.0)
    line = LogLine(1, 1, "x" * 984)
    for _ in range(100):
        for event, cost in a.receive(LogChunk(a.stream_id, [line]), 0.0):
            merge.add(a, event, cost, 0.0)
    assert a.held <= 2 * a.window + 32 * 1024
    kept = len(drain(merge, [a]))
    feed(merge, a, 2)
    after = [merge.next([a], 0.0) for _ in range(2)]
    assert isinstance(after[0], LogGap)
    assert after[0].lines == 100 - kept
    assert after[0].bytes == (100 - kept) * line_cost(line)
    assert isinstance(after[1], LogText)


def test_times_that_no_calendar_has_are_brought_into_range() -> None:
    a = source("a")
    merge = Live(None, 0.0)
    feed(merge, a, -5, 10**30)
    first, last = (merge.next([a], 0.0) for _ in range(2))
    assert first is not None
    assert first.at_ns == 0
    assert last is not None
    assert iso(last.at_ns / 1e9).startswith("9999")
