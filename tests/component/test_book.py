"""The assignment book: sets in parts, deltas that fit, gaps that do not, and nothing that is not on the disk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.journal.journal import Journal, JournalError
from agent.reconcile.book import AssignmentBook
from shared.spec.instance import Assignment
from shared.wire.frames import AssignmentDelta, AssignmentSet


def one(name: str, revision: int = 1) -> Assignment:
    return Assignment(name, "con", "web", 0, revision, "hash")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await asyncio.to_thread(Journal, tmp_path / "journal.db")
    yield opened
    await asyncio.to_thread(opened.close)


@pytest.fixture
async def book(journal: Journal) -> AssignmentBook:
    return AssignmentBook(journal, journal.load())


async def test_a_set_counts_with_its_final_part(book: AssignmentBook, journal: Journal) -> None:
    assert not book.desired.known
    await book.apply_set(AssignmentSet(4, 0, False, [one("a")]))
    assert book.sequence is None
    await book.apply_set(AssignmentSet(4, 1, True, [one("b")]))
    assert book.sequence == 4
    assert book.desired.known
    assert set(book.assignments) == {"a", "b"}
    assert await book.changes.take(0) == {"a", "b"}
    state = await asyncio.to_thread(journal.load)
    assert (state.sequence, set(state.assignments)) == (4, {"a", "b"})


async def test_an_empty_set_is_a_set(book: AssignmentBook) -> None:
    await book.apply_set(AssignmentSet(1, 0, True, []))
    assert book.desired.known
    assert not book.assignments


async def test_a_set_names_what_it_no_longer_holds_as_changed(book: AssignmentBook) -> None:
    await book.apply_set(AssignmentSet(1, 0, True, [one("a")]))
    await book.changes.take(0)
    await book.apply_set(AssignmentSet(2, 0, True, [one("b")]))
    assert await book.changes.take(0) == {"a", "b"}


@pytest.mark.parametrize("part", [AssignmentSet(4, 2, True, [one("b")]), AssignmentSet(5, 1, True, [one("b")])])
async def test_a_part_out_of_order_counts_for_nothing(book: AssignmentBook, part: AssignmentSet) -> None:
    await book.apply_set(AssignmentSet(4, 0, False, [one("a")]))
    with capture_logs() as logs:
        await book.apply_set(part)
        await book.apply_set(AssignmentSet(4, 1, True, [one("c")]))
    assert len(logs) == 2
    assert not book.desired.known
    await book.apply_set(AssignmentSet(6, 0, True, [one("d")]))
    assert book.sequence == 6
    assert set(book.assignments) == {"d"}


async def test_a_delta_changes_adds_and_forgets(book: AssignmentBook, journal: Journal) -> None:
    await book.apply_set(AssignmentSet(4, 0, True, [one("a"), one("b")]))
    await book.changes.take(0)
    assert await book.apply_delta(AssignmentDelta(4, 5, [one("b", 2), one("c")], ["a"]))
    assert book.sequence == 5
    assert book.assignments == {"b": one("b", 2), "c": one("c")}
    assert await book.changes.take(0) == {"a", "b", "c"}
    assert (await asyncio.to_thread(journal.load)).assignments == {"b": one("b", 2), "c": one("c")}


@pytest.mark.parametrize("base", [3, 5])
async def test_a_delta_for_another_base_is_a_gap(book: AssignmentBook, base: int) -> None:
    await book.apply_set(AssignmentSet(4, 0, True, [one("a")]))
    assert not await book.apply_delta(AssignmentDelta(base, 6, [one("b")]))
    assert (book.sequence, set(book.assignments)) == (4, {"a"})


async def test_a_delta_before_any_set_is_a_gap(book: AssignmentBook) -> None:
    assert not await book.apply_delta(AssignmentDelta(0, 1, [one("a")]))
    assert not book.desired.known


async def test_what_the_disk_refused_is_not_acted_on(book: AssignmentBook, journal: Journal) -> None:
    await book.apply_set(AssignmentSet(4, 0, True, [one("a")]))
    await book.changes.take(0)
    await asyncio.to_thread(journal._connection.execute, "PRAGMA query_only=1")  # as a read-only file system answers
    with pytest.raises(JournalError):
        await book.apply_delta(AssignmentDelta(4, 5, [one("b")]))
    with pytest.raises(JournalError):
        await book.apply_set(AssignmentSet(9, 0, True, [one("c")]))
    assert (book.sequence, set(book.assignments)) == (4, {"a"})
    assert await book.changes.take(0) == set()
