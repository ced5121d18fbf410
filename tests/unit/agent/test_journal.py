"""The journal: what it took it gives back, to this agent or the next, and what it cannot read it keeps."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.core.history import History
from agent.journal import journal as journal_module
from agent.journal.ballast import BALLAST_BYTES
from agent.journal.journal import Journal, JournalError, JournalState
from shared.spec.container import EnvVar, HealthCheck
from shared.spec.instance import Assignment, InstanceSpec, Phase
from shared.spec.reason import Reason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def reopened(path: Path) -> JournalState:
    journal = Journal(path)
    try:
        return journal.load()
    finally:
        journal.close()


def assignment(name: str) -> Assignment:
    spec = InstanceSpec(
        "busybox", ["sleep", "9"], env=[EnvVar("A", "b")], sealed=b"\x00\xff", health_check=HealthCheck(port=80)
    )
    return Assignment(name, "con", "web", 3, 7, "hash", "run", spec)


def record() -> History:
    return History(
        attempt=4,
        stage=Phase.STARTING,
        engine_id="abc",
        ever_started=True,
        next_at=17.5,
        reason=Reason("exited", "exited with code 1", 17.5),
        end=Phase.FAILED,
        volumes_gone=["data"],
    )


def test_a_new_journal_knows_no_set(journal: Journal) -> None:
    assert journal.load() == JournalState()


def test_everything_comes_back(journal: Journal, path: Path) -> None:
    journal.save_set(5, {"a": assignment("a"), "b": assignment("b")})
    journal.save_delta(6, {"c": assignment("c")}, ["a"])
    journal.save_history({"b": record(), "x": record()})
    journal.save_history({"x": None})
    journal.save_boot("boot")
    expected = JournalState({"b": assignment("b"), "c": assignment("c")}, 6, {"b": record()}, "boot")
    assert reopened(path) == expected


def test_a_set_replaces_the_one_before(journal: Journal, path: Path) -> None:
    journal.save_set(5, {"a": assignment("a")})
    journal.save_set(6, {})
    state = reopened(path)
    assert (state.sequence, state.assignments) == (6, {})


def test_an_order_survives_the_death_of_the_agent(path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from agent.journal.journal import Journal
from shared.spec.instance import Assignment
journal = Journal(Path(sys.argv[1]))
journal.save_set(3, {"a": Assignment("a", "con", "web", 0, 1, "hash")})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    state = reopened(path)
    assert (state.sequence, list(state.assignments)) == (3, ["a"])


def test_only_its_owner_may_read_it(journal: Journal, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["noise", "format", "row"])
def test_an_unreadable_file_is_moved_aside_and_kept(path: Path, damage: str) -> None:
    journal = Journal(path)
    journal.save_set(5, {"a": assignment("a")})
    journal.close()
    if damage == "noise":
        path.write_bytes(b"noise" * 1000)
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            if damage == "format":
                connection.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
            else:
                connection.execute("UPDATE assignments SET body = x'c1'")
    damaged = path.read_bytes()
    assert reopened(path) == JournalState()
    assert (path.parent / "journal.db.unreadable-1").read_bytes() == damaged
    path.write_bytes(b"again" * 1000)
    assert reopened(path) == JournalState()
    assert (path.parent / "journal.db.unreadable-2").exists()


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot open the journal"):
        Journal(tmp_path / "missing" / "journal.db")
    with pytest.raises(JournalError, match="cannot open the journal"):
        Journal(tmp_path)
    assert tmp_path.is_dir(), "not moved aside: nothing is wrong with what it holds"


def test_a_full_disk_is_opened_in_the_room_of_the_ballast(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.save_set(5, {"a": assignment("a")})
    journal.close()
    ballast = path.with_name("ballast")
    assert ballast.stat().st_size == BALLAST_BYTES
    opened = journal_module._open

    def full(where: Path) -> tuple[sqlite3.Connection, JournalState]:
        if ballast.exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return opened(where)

    monkeypatch.setattr(journal_module, "_open", full)
    with closing(Journal(path)) as again:
        assert list(again.load().assignments) == ["a"]
        assert not ballast.exists(), "the room is left to the journal"
        again.save_set(6, {})
        assert ballast.stat().st_size == BALLAST_BYTES, "there is room again"


def test_a_disk_that_is_full_after_all_is_one_clear_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(where: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module, "_open", full)
    for _ in range(2):
        with pytest.raises(JournalError, match="No space left"):
            Journal(path)


def test_no_ballast_is_taken_of_a_disk_that_has_no_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(path.parent)
    scarce = os.statvfs_result((*disk[:4], 1, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: scarce)
    with closing(Journal(path)) as journal:
        journal.save_set(5, {})
    assert not path.with_name("ballast").exists()


def test_a_disk_that_takes_nothing_is_an_error_and_changes_nothing(journal: Journal, path: Path) -> None:
    journal.save_set(5, {"a": assignment("a")})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count={pages}")  # as a full disk answers
    big = {f"b{number}": assignment(f"b{number}") for number in range(500)}
    with pytest.raises(JournalError, match="cannot write the journal"):
        journal.save_delta(6, big, ["a"])
    state = reopened(path)
    assert (state.sequence, list(state.assignments)) == (5, ["a"])
