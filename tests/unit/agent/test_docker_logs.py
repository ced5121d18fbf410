"""From the engine's bytes to lines, however the bytes are cut."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.docker_logs import CUT_MARK, MAX_LINE_BYTES, FrameSplitter, LogDecoder
from shared.wire.frames import LogLine

SECOND_NS = 1_767_323_045 * 10**9


def at(nanos: int) -> bytes:
    return b"2026-01-02T03:04:05.%09dZ " % nanos


def framed(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def decoded(decoder: LogDecoder, *pieces: bytes) -> list[LogLine]:
    lines = [line for piece in pieces for line in decoder.feed(piece)]
    return lines + decoder.end()


def test_frames() -> None:
    data = framed(1, at(7) + b"out\n") + framed(2, at(8) + b"err \xc3\xa9\xff\n") + framed(1, at(9) + b"\n")
    assert decoded(LogDecoder(), data) == [
        LogLine(SECOND_NS + 7, 1, "out"),
        LogLine(SECOND_NS + 8, 2, "err é\ufffd"),
        LogLine(SECOND_NS + 9, 1, ""),
    ]


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.text(st.characters(codec="ascii", exclude_characters="\n")))),
    st.data(),
)
def test_any_cut_of_the_bytes_gives_the_same_lines(entries: list[tuple[int, str]], data: st.DataObject) -> None:
    whole = b"".join(framed(stream, at(n) + text.encode() + b"\n") for n, (stream, text) in enumerate(entries))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = [LogLine(SECOND_NS + n, stream, text) for n, (stream, text) in enumerate(entries)]
    assert decoded(LogDecoder(), *pieces) == expected


def test_a_long_line_in_parts_keeps_its_beginning_and_says_so() -> None:
    parts = [framed(1, at(n) + b"x" * MAX_LINE_BYTES) for n in range(3)]
    other = framed(2, at(9) + b"between\n")
    last = framed(1, at(10) + b"end\n")
    between, long, after = decoded(LogDecoder(), *parts, other, last, framed(1, at(11) + b"after\n"))
    assert between.text == "between"
    assert (long.at_ns, long.stream) == (SECOND_NS, 1)
    assert len(long.text.encode()) == MAX_LINE_BYTES
    assert long.text.endswith(CUT_MARK)
    assert after == LogLine(SECOND_NS + 11, 1, "after")


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    text = b"x" * MAX_LINE_BYTES
    (line,) = decoded(LogDecoder(), framed(1, at(1) + text), framed(1, at(2) + b"\n"))
    assert line.text == text.decode()


def test_a_cut_never_splits_a_character() -> None:
    (line,) = decoded(LogDecoder(), framed(1, at(1) + "é".encode() * MAX_LINE_BYTES + b"\n"))
    assert "\ufffd" not in line.text
    assert len(line.text.encode()) <= MAX_LINE_BYTES


def test_a_line_without_newline_comes_at_the_end() -> None:
    decoder = LogDecoder()
    assert decoder.feed(framed(1, at(1) + b"no newline")) == []
    assert decoder.end() == [LogLine(SECOND_NS + 1, 1, "no newline")]
    assert decoder.end() == []


def test_a_terminal_has_no_frames() -> None:
    data = at(1) + b"one\r\n" + at(2) + b"two\r\n" + at(3) + b"three"
    for cut in range(len(data)):
        lines = decoded(LogDecoder(terminal=True), data[:cut], data[cut:])
        assert [(line.at_ns - SECOND_NS, line.stream, line.text) for line in lines] == [
            (1, 1, "one"),
            (2, 1, "two"),
            (3, 1, "three"),
        ]


def test_a_terminals_endless_line_does_not_grow() -> None:
    decoder = LogDecoder(terminal=True)
    for _ in range(100):
        assert decoder.feed(b"x" * 10_000) == []
    (line,) = decoder.feed(b"\n")
    assert line.text.endswith(CUT_MARK)


def test_an_entry_without_a_time_takes_the_last_one() -> None:
    first, second = decoded(LogDecoder(), framed(1, at(5) + b"a\n"), framed(1, b"no time here\n"))
    assert (second.at_ns, second.text) == (SECOND_NS, "no time here")
    assert first.at_ns == SECOND_NS + 5


def test_what_is_no_log_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        FrameSplitter().feed(b"HTTP/1.1 200 OK\r\n")
