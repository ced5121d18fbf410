"""Log streams: credits, gaps, order, and that a flood delays nobody."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.faults import EngineUnreachable, RuntimeFault
from agent.logs.backlog import CHUNK_LINES, Backlog
from agent.logs.streams import MAX_STREAMS, LogStreams
from shared.wire.codec import MAX_FRAME_BYTES, encode
from shared.wire.credit import line_cost, lines_cost
from shared.wire.frames import LogCancel, LogChunk, LogCredit, LogEnd, LogLine, LogSubscribe

NOW = 1_000.0
NOW_NS = int(NOW * 1e9)
PLENTY = 2**40


def past(count: int, text: str = "line") -> list[LogLine]:
    return [LogLine(n + 1, 1, f"{text} {n}") for n in range(count)]


def live(count: int, text: str = "line") -> list[LogLine]:
    return [LogLine(NOW_NS + n + 1, 1, f"{text} {n}") for n in range(count)]


class Source:
    """Gives each reader what was written so far, then what comes, until `ended`."""

    def __init__(self, lines: list[LogLine]) -> None:
        self.lines = lines
        self.ended = asyncio.Event()
        self.wrote = asyncio.Event()
        self.read = 0
        self.closed = 0
        self.passes: list[float | None] = []
        self.faults: list[RuntimeFault] = []

    def write(self, *lines: LogLine) -> None:
        self.lines.extend(lines)
        self.wrote.set()

    async def logs(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        self.passes.append(since)
        if self.faults:
            raise self.faults.pop(0)
        sent = 0 if tail is None else max(0, len(self.lines) - tail)
        try:
            while True:
                while sent < len(self.lines):
                    self.read += 1
                    yield self.lines[sent]
                    sent += 1
                if not follow or self.ended.is_set():
                    return
                self.wrote.clear()
                waits = [asyncio.create_task(event.wait()) for event in (self.wrote, self.ended)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
        finally:
            self.closed += 1


class Reader:
    """What the coordinator would receive."""

    def __init__(self) -> None:
        self.frames: list[LogChunk | LogEnd] = []
        self.engines: dict[str, str] = {"ins_1": "engine_1"}

    @property
    def chunks(self) -> list[LogChunk]:
        return [frame for frame in self.frames if isinstance(frame, LogChunk)]

    @property
    def lines(self) -> list[LogLine]:
        return [line for chunk in self.chunks for line in chunk.lines]

    @property
    def dropped(self) -> int:
        return sum(chunk.dropped for chunk in self.chunks)

    @property
    def ends(self) -> list[LogEnd]:
        return [frame for frame in self.frames if isinstance(frame, LogEnd)]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.002)


async def turns(count: int) -> None:
    """Let everything that is ready run, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def reader() -> Reader:
    return Reader()


def serve(source: Source, reader: Reader) -> LogStreams:
    return LogStreams(source, reader.engines.get, reader.frames.append, lambda: NOW)


def ask(credit: int = PLENTY, *, follow: bool = False, tail: int | None = None, stream_id: str = "s") -> LogSubscribe:
    return LogSubscribe(stream_id, "ins_1", credit, tail=tail, follow=follow)


async def test_all_there_is_then_the_end(reader: Reader) -> None:
    source = Source(past(3000))
    streams = serve(source, reader)
    streams.subscribe(ask())
    await reader.until(lambda: bool(reader.ends))
    assert reader.lines == source.lines
    assert reader.frames[-1] == LogEnd("s")
    assert reader.dropped == 0
    await streams.close()


async def test_nothing_is_sent_beyond_the_credit_but_the_rest_of_a_line(reader: Reader) -> None:
    source = Source(past(50))
    streams = serve(source, reader)
    cost = line_cost(source.lines[0])
    streams.subscribe(ask(credit=3 * cost - 1))
    await reader.until(lambda: len(reader.lines) == 3)
    streams.credit(LogCredit("s", 1))
    await asyncio.sleep(0)
    assert len(reader.lines) == 3, "the overdraft is paid first"
    streams.credit(LogCredit("s", 2 * cost))
    await reader.until(lambda: len(reader.lines) == 5)
    streams.credit(LogCredit("s", PLENTY))
    await reader.until(lambda: bool(reader.ends))
    assert reader.lines == source.lines
    await streams.close()


async def test_the_past_waits_for_credit_and_loses_nothing(reader: Reader) -> None:
    source = Source(past(20_000))
    streams = serve(source, reader)
    streams.subscribe(ask(credit=1, follow=True))
    await reader.until(lambda: bool(reader.lines))
    await turns(500)
    assert source.read < 5_000, "it must not be read into memory"
    streams.credit(LogCredit("s", PLENTY))
    await reader.until(lambda: len(reader.lines) == len(source.lines))
    assert (reader.lines, reader.dropped) == (source.lines, 0)
    await streams.close()


async def test_the_present_does_not_wait_and_counts_what_it_drops(reader: Reader) -> None:
    source = Source(live(20_000))
    streams = serve(source, reader)
    streams.subscribe(ask(credit=1, follow=True))
    await reader.until(lambda: source.read == 20_000)
    streams.credit(LogCredit("s", PLENTY))
    await reader.until(lambda: reader.lines[-1] == source.lines[-1])
    assert reader.dropped > 0
    assert reader.dropped + len(reader.lines) == 20_000
    got = {line.at_ns for line in reader.lines}
    lost = [line for line in source.lines if line.at_ns not in got]
    assert sum(chunk.dropped_bytes for chunk in reader.chunks) == lines_cost(lost)
    gap = next(chunk for chunk in reader.chunks if chunk.dropped)
    assert gap.lines[0] == source.lines[1 + reader.dropped], "the gap stands where the lines are missing"
    await streams.close()


async def test_a_single_line_leaves_at_once(reader: Reader) -> None:
    source = Source([])
    streams = serve(source, reader)
    streams.subscribe(ask(follow=True))
    await reader.until(lambda: bool(source.passes))
    source.write(*live(1))
    await turns(20)
    assert len(reader.lines) == 1
    await streams.close()


async def test_a_flood_delays_nobody(reader: Reader) -> None:
    source = Source(live(50_000, "x" * 60))
    streams = serve(source, reader)
    streams.subscribe(ask(credit=1, follow=True))
    most = before = 0
    while source.read < len(source.lines):
        await asyncio.sleep(0)
        most, before = max(most, source.read - before), source.read
    assert most <= 256, "lines between two turns of everybody else"
    await streams.close()


async def test_cancel_is_prompt_and_final(reader: Reader) -> None:
    source = Source(live(100))
    streams = serve(source, reader)
    streams.subscribe(ask(credit=1, follow=True))
    await reader.until(lambda: source.read == 100)
    streams.cancel(LogCancel("s"))
    sent = list(reader.frames)
    streams.credit(LogCredit("s", PLENTY))
    await streams.close()
    assert source.closed == 1
    assert reader.frames == sent, "nothing after the cancellation, not even an end"
    streams.cancel(LogCancel("s"))


async def test_a_second_subscription_replaces_the_first(reader: Reader) -> None:
    source = Source(past(10))
    streams = serve(source, reader)
    streams.subscribe(ask(credit=0))
    streams.subscribe(ask(tail=2))
    await reader.until(lambda: bool(reader.ends))
    assert reader.lines == source.lines[-2:]
    await streams.close()


async def test_an_unknown_instance_ends_with_a_reason(reader: Reader) -> None:
    streams = serve(Source([]), reader)
    streams.subscribe(LogSubscribe("s", "ins_other", PLENTY))
    await reader.until(lambda: bool(reader.ends))
    assert "no engine container" in reader.ends[0].error
    await streams.close()


async def test_too_many_streams_are_refused(reader: Reader) -> None:
    streams = serve(Source([]), reader)
    for number in range(MAX_STREAMS + 1):
        streams.subscribe(ask(follow=True, stream_id=f"s{number}"))
    assert [end.stream_id for end in reader.ends] == [f"s{MAX_STREAMS}"]
    await streams.close()


async def test_following_goes_on_over_a_restart_without_repeating(reader: Reader) -> None:
    source = Source(live(3))
    streams = serve(source, reader)
    streams.subscribe(ask(follow=True))
    await reader.until(lambda: len(reader.lines) == 3)
    source.ended.set()
    await reader.until(lambda: len(source.passes) >= 2)
    assert source.passes[1] is not None
    assert source.passes[1] <= source.lines[-1].at_ns / 1e9
    source.ended.clear()
    source.write(LogLine(NOW_NS + 99, 1, "after the restart"))
    await reader.until(lambda: len(reader.lines) == 4)
    assert reader.lines == source.lines
    source.ended.set()
    del reader.engines["ins_1"]
    await reader.until(lambda: bool(reader.ends))
    assert reader.ends == [LogEnd("s")]
    await streams.close()


async def test_following_survives_an_engine_that_is_away(reader: Reader) -> None:
    source = Source(live(2))
    source.faults.append(EngineUnreachable("away"))
    streams = serve(source, reader)
    streams.subscribe(ask(follow=True))
    await reader.until(lambda: len(reader.lines) == 2)
    assert not reader.ends
    await streams.close()


async def test_a_read_that_fails_says_why(reader: Reader) -> None:
    source = Source([])
    source.faults.append(EngineUnreachable("away"))
    streams = serve(source, reader)
    streams.subscribe(ask())
    await reader.until(lambda: bool(reader.ends))
    assert reader.ends == [LogEnd("s", "away")]
    await streams.close()


LINES = st.builds(LogLine, st.integers(0, 2**62), st.sampled_from([1, 2]), st.text(max_size=16_384 // 4))


@given(st.lists(LINES, max_size=40), st.integers(0, 200_000))
def test_every_chunk_fits_a_frame_and_nothing_is_lost_unsaid(lines: list[LogLine], credit: int) -> None:
    backlog = Backlog("s" * 64, credit)
    for line in lines:
        backlog.add(line)
    sent: list[LogLine] = []
    dropped = 0
    while True:
        before = backlog.credit
        chunk = backlog.take()
        if chunk is None:
            backlog.credit += credit + 1
            if not len(backlog):
                break
            continue
        assert before > 0
        assert lines_cost(chunk.lines[:-1]) < before
        assert len(chunk.lines) <= CHUNK_LINES
        assert len(encode(chunk)) <= MAX_FRAME_BYTES
        sent += chunk.lines
        dropped += chunk.dropped
    assert sent == lines[dropped:]
