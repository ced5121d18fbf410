"""The buffer of a drain: a queue on the disk that survives whatever is done to it, and counts what it cannot keep."""

import json
import random
from itertools import count
from pathlib import Path

import pytest

from coordinator.logs.drains import spool as spool_module
from coordinator.logs.drains.spool import Fate, Spool

LIMIT = 1024 * 1024


def block(number: int, size: int = 100) -> bytes:
    return b"%08d" % number + b"." * size


def numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload[:8]) for payload in payloads]


def drained(spool: Spool) -> list[int]:
    found = []
    while (taken := spool.take(10_000)) is not None:
        found += numbers(taken.payloads)
        spool.settle(Fate(taken.lines, 0), 0.0)
    return found


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.lines"))


def test_first_in_first_out_and_nothing_stays(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "d", LIMIT)
    assert spool.take(1) is None
    for number in range(100):
        spool.append(block(number), 3)
    assert spool.buffered == 300
    assert drained(spool) == list(range(100))
    assert (spool.buffered, spool.state.delivered, spool.state.dropped) == (0, 300, 0)


def test_what_was_taken_and_not_settled_comes_again(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    spool.append(block(1), 1)
    first = spool.take(1)
    assert spool.take(1) is first
    again = Spool.open(tmp_path, LIMIT)
    taken = again.take(1)
    assert taken is not None
    assert numbers(taken.payloads) == [1]


def test_a_crash_costs_repeats_and_a_close_does_not(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    for number in range(4):
        spool.append(block(number), 1)
    for now in (10.0, 10.1):
        assert spool.take(1) is not None
        spool.settle(Fate(1, 0), now)
    crashed = Spool.open(tmp_path, LIMIT)
    assert crashed.state.delivered == 1, "the second was settled within the second that is saved at once"
    assert crashed.buffered == 3
    spool.close()
    closed = Spool.open(tmp_path, LIMIT)
    assert (closed.buffered, closed.state.delivered, closed.state.delivered_at) == (2, 2, 10.1)
    assert drained(closed) == [2, 3]


def test_a_full_buffer_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    for number in range(3000):
        spool.append(block(number, 1000), 2)
    size = sum(path.stat().st_size for path in segments(tmp_path))
    assert size <= LIMIT
    assert spool.state.dropped == spool.state.untold
    assert spool.state.dropped + spool.buffered == 6000
    assert spool.state.dropped > 0
    kept = drained(spool)
    assert kept == list(range(3000 - len(kept), 3000))
    assert spool.state.delivered + spool.state.dropped == 6000


def test_what_is_under_way_is_not_lost_with_its_segment(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    spool.append(block(0, 1000), 1)
    taken = spool.take(1)
    assert taken is not None
    for number in range(1, 3000):
        spool.append(block(number, 1000), 1)
    before = spool.state.dropped
    spool.settle(Fate(1, 0), 1.0)
    assert spool.state.delivered == 1
    assert spool.state.dropped == before
    rest = drained(spool)
    assert rest == list(range(3000 - len(rest), 3000))
    assert spool.state.delivered + spool.state.dropped == 3000


def test_a_torn_end_is_cut_and_writing_goes_on(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    for number in range(3):
        spool.append(block(number), 1)
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    for cut in range(1, 2 * (len(whole) // 3), 7):
        segment.write_bytes(whole[:-cut])
        torn = Spool.open(tmp_path, LIMIT)
        left = torn.buffered
        torn.append(block(9), 1)
        assert drained(torn) == [*range(left), 9]
        (tmp_path / "state.json").unlink(missing_ok=True)
        for path in segments(tmp_path):
            path.unlink()


def test_a_damaged_block_is_counted_and_passed_over(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    for number in range(200):
        spool.append(block(number, 1000), 1)
    damaged = segments(tmp_path)[0]
    data = bytearray(damaged.read_bytes())
    data[3000] ^= 0xFF
    damaged.write_bytes(bytes(data))
    again = Spool.open(tmp_path, LIMIT)
    found = drained(again)
    assert found[:2] == [0, 1]
    assert found == sorted(set(found))
    assert again.state.delivered + again.state.dropped == 200
    assert again.state.dropped > 0
    again.append(block(999), 1)
    assert drained(again) == [999]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"segment": "x"}'])
def test_a_state_that_cannot_be_read_means_once_more(tmp_path: Path, content: bytes) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    spool.append(block(1), 1)
    (tmp_path / "state.json").write_bytes(content)
    assert drained(Spool.open(tmp_path, LIMIT)) == [1]


def test_a_state_ahead_of_a_cut_file_repeats_nothing_and_loses_nothing_new(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    spool.append(block(1), 1)
    assert spool.take(1)
    spool.settle(Fate(1, 0), 5.0)
    spool.close()
    (segment,) = segments(tmp_path)
    segment.write_bytes(segment.read_bytes()[:20])
    again = Spool.open(tmp_path, LIMIT)
    assert again.buffered == 0
    again.append(block(2), 1)
    assert drained(again) == [2]


def test_what_cannot_be_written_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool.open(tmp_path, LIMIT)
    spool.append(block(1), 1)
    original = Path.open

    def full(path: Path, *given: object, **named: object) -> object:
        if given == ("ab",):
            raise OSError(28, "No space left on device")
        return original(path, *given, **named)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            spool.append(block(2), 1)
    spool.append(block(3), 1)
    assert drained(spool) == [1, 3]


def test_files_are_the_owners_only_and_the_state_is_readable(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "d", LIMIT)
    spool.append(block(1), 1, missing=5)
    spool.close()
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert json.loads((tmp_path / "d" / "state.json").read_bytes())["dropped"] == 5


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_every_line_is_accounted_for(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends, deliveries, refusals and orderly restarts in any order: delivered + dropped + buffered = written, in order."""
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 64 * 1024)
    rng = random.Random(seed)
    spool, written, now, seen = Spool.open(tmp_path, 256 * 1024), 0, 0.0, -1
    serial = count()
    for _ in range(400):
        now += rng.random() / 8
        action = rng.random()
        if action < 0.6:
            lines = rng.randrange(1, 9)
            spool.append(block(next(serial), rng.randrange(4000)), lines)
            written += lines
        elif action < 0.95:
            taken = spool.take(rng.randrange(1, 20_000))
            if taken is not None:
                assert numbers(taken.payloads)[0] > seen
                seen = numbers(taken.payloads)[-1]
                dropped = rng.randrange(taken.lines + 1)
                for _ in range(rng.randrange(3)):
                    spool.append(block(next(serial), 30_000), 1)
                    written += 1
                spool.settle(Fate(taken.lines - dropped, dropped), now)
        else:
            spool.close()
            spool = Spool.open(tmp_path, 256 * 1024)
        assert spool.buffered >= 0
        assert spool.state.delivered + spool.state.dropped + spool.buffered == written
