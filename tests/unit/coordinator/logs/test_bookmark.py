"""Cursors: whatever is cut where, and however lines share their times, a reader that comes back gets each line once."""

import random
from dataclasses import dataclass, field

import pytest

from coordinator.logs.bookmark import Bookmark
from shared.wire.positions import OVERLAP_SECONDS, Gate, Position

OVERLAP_NS = int(OVERLAP_SECONDS * 1e9)
START = 1_700_000_000 * 10**9


@dataclass
class Log:
    """An instance's log file: (time, stream, number) in the order of the file."""

    lines: list[tuple[int, int, int]] = field(default_factory=list)
    at: int = START

    def write(self, rng: random.Random) -> None:
        """Coarse times, so that many lines share one; some get into the file behind later ones of the other stream."""
        self.at += rng.choice([0, 0, 1, 1000])
        late = rng.choice([0, 0, 0, rng.randrange(OVERLAP_NS // 2)])
        stream = rng.choice([1, 2])
        newest = max((at for at, of, _ in self.lines if of == stream), default=0)
        self.lines.append((max(newest, self.at - late), stream, len(self.lines)))

    def since(self, since: float | None) -> list[tuple[int, int, int]]:
        """As the engine does it: from the first line that is not older, everything."""
        for index, (at, _, _) in enumerate(self.lines):
            if since is None or at / 1e9 >= since:
                return self.lines[index:]
        return []


@pytest.mark.parametrize("seed", range(60))
def test_readers_that_come_back_get_every_line_once(seed: int) -> None:
    rng = random.Random(seed)
    logs = {f"inst_{number}": Log() for number in range(rng.randrange(1, 5))}
    got: dict[str, list[int]] = {name: [] for name in logs}
    cursor = ""
    for _ in range(rng.randrange(2, 12)):
        if rng.random() < 0.2:
            logs[f"inst_{len(logs)}"] = Log()
            got[f"inst_{len(logs) - 1}"] = []
        for one in logs.values():
            for _ in range(rng.randrange(30)):
                one.write(rng)
        bookmark = Bookmark.read(cursor) if cursor else Bookmark(START - OVERLAP_NS)
        arriving = []
        for name, one in logs.items():
            position = bookmark.start(name)
            gate = Gate(position or Position())
            told = one.since(position.since() if position else None)
            arriving.append([(name, line) for line in told if gate.admits(line[0], line[1], str(line[2]))])
        bookmark.begin()
        while any(arriving):  # the nodes in any order, each its own in the order of its times per stream
            chosen = rng.choice([each for each in arriving if each])
            name, (at_ns, stream, number) = chosen.pop(0)
            got[name].append(number)
            bookmark.passed(name, at_ns, stream, str(number))
            if rng.random() < 0.02:
                break
        cursor = bookmark.cursor()
    bookmark = Bookmark.read(cursor)
    for name, one in logs.items():
        position = bookmark.start(name)
        assert position is not None
        gate = Gate(position)
        got[name] += [
            number for at, stream, number in one.since(position.since()) if gate.admits(at, stream, str(number))
        ]
        assert sorted(got[name]) == list(range(len(one.lines))), "each once, and none missing"


def test_what_was_silent_is_read_from_the_floor_and_what_is_new_from_its_beginning() -> None:
    bookmark = Bookmark()
    assert bookmark.start("inst_a") is None
    assert bookmark.start("inst_b") is None
    bookmark.begin()
    assert bookmark.cursor() == "", "nothing was seen: there is nothing to come back to"
    bookmark.passed("inst_a", START + 5, 1, "x")
    again = Bookmark.read(bookmark.cursor())
    silent, new = again.start("inst_b"), again.start("inst_c")
    assert silent == Position(START + 5)
    assert new == Position()
    assert new.since() is None
    kept = Bookmark.read(again.cursor())
    assert kept.start("inst_c") == Position(), "still from its beginning"
    assert kept.start("inst_b") == Position(START + 5)


def test_what_is_gone_leaves_the_cursor_and_what_is_entered_later_has_no_past() -> None:
    bookmark = Bookmark(START)
    for name in ("inst_a", "inst_b"):
        bookmark.start(name)
    both = len(bookmark.cursor())
    bookmark.keep({"inst_a"})
    assert len(bookmark.cursor()) < both
    bookmark.enter("inst_z", START + 9 * 10**9)
    position = Bookmark.read(bookmark.cursor()).start("inst_z")
    assert position is not None
    assert not Gate(position).admits(START, 1, "x")
    assert Gate(position).admits(START + 9 * 10**9 + 1, 2, "x")


@pytest.mark.parametrize("cursor", ["x", "AAAA", "AQ", "AQAAAAAAAAAA", "AQAAAAAAAAABAAAA", "____________", "é"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError):
        Bookmark.read(cursor)


def test_a_cursor_of_many_instances_stays_within_its_limit() -> None:
    bookmark = Bookmark(START)
    for number in range(200):
        bookmark.start(f"inst_{number}")
        for stream in (1, 2):
            bookmark.passed(f"inst_{number}", START + number, stream, "x")
            bookmark.passed(f"inst_{number}", START + number, stream, "x")
    assert len(bookmark.cursor()) <= 16_384


def test_a_clock_set_back_repeats_and_loses_nothing_within_a_session() -> None:
    position = Position()
    position.passed(START, 1, "x")
    gate = Gate(position)
    assert not gate.admits(START - 5, 1, "w")
    assert not gate.admits(START, 1, "x")
    assert gate.admits(START + 1, 1, "y")
    assert gate.admits(START - 100, 1, "z"), "what comes after a new line is new, whatever its time"


def test_who_began_in_the_middle_of_a_time_goes_on_there() -> None:
    """A tail of two: of four lines of one time the first two were never seen."""
    position = Position()
    for text in "cd":
        position.passed(START, 1, text)
    gate = Gate(position)
    assert [text for text in "abcdef" if gate.admits(START, 1, text)] == ["e", "f"]
