"""Statements past SQLAlchemy mean the same on both databases, fail as its own do, and keep to the transaction they are in."""

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from coordinator.store import inline
from coordinator.store.database import Store, StoreError, Tx
from coordinator.store.mapping import Mapper, Record
from coordinator.store.prepared import Prepared
from coordinator.store.tables import node, setting

INSERT = Prepared(insert(setting))
ONE = Prepared(select(setting.c.value).where(setting.c.key == bindparam("of_key")))
ALL = Prepared(select(setting.c.key, setting.c.value).order_by(setting.c.key))
OVERWRITE = Prepared(update(setting).where(setting.c.key == bindparam("of_key")).values(value=bindparam("new_value")))
LENGTHS = Prepared(
    select(setting.c.key, setting.c.value == b"1", literal(7)).where(setting.c.key != "hidden").order_by(setting.c.key)
)


async def add(conn: AsyncConnection, *keys: str, value: bytes = b"") -> None:
    await INSERT.change_each(conn, [{"key": key, "value": value} for key in keys])


async def keys(store: Store) -> list[str]:
    async with store.read() as conn:
        return [key for key, _ in await ALL.all(conn)]


async def test_what_is_changed_is_counted_and_read_back(store: Store) -> None:
    async def unit(tx: Tx) -> tuple[int, int]:
        await add(tx.conn, "a", "b")
        hit = await OVERWRITE.change(tx.conn, {"of_key": "a", "new_value": b"\0\xff"})
        return hit, await OVERWRITE.change(tx.conn, {"of_key": "z", "new_value": b""})

    assert await store.write(unit) == (1, 0)
    async with store.read() as conn:
        assert [tuple(row) for row in await ALL.all(conn)] == [("a", b"\0\xff"), ("b", b"")]
        assert await ONE.first(conn, {"of_key": "z"}) is None


async def test_truths_are_truths_and_literals_are_kept(store: Store) -> None:
    async def unit(tx: Tx) -> None:
        await add(tx.conn, "hidden", "no")
        await add(tx.conn, "yes", value=b"1")

    await store.write(unit)
    async with store.read() as conn:
        rows = [tuple(row) for row in await LENGTHS.all(conn)]
    assert rows == [("no", False, 7), ("yes", True, 7)]
    assert [type(row[1]) for row in rows] == [bool, bool]


async def test_a_value_that_is_not_given_is_an_error_and_no_null(store: Store) -> None:
    async with store.read() as conn:
        with pytest.raises(Exception, match="of_key"):
            await ONE.first(conn)


async def test_a_broken_constraint_is_sqlalchemys_and_undoes_its_unit_only(store: Store) -> None:
    async def twice(tx: Tx) -> None:
        await add(tx.conn, "twice")
        await add(tx.conn, "twice")

    async def once(tx: Tx, key: str) -> None:
        await add(tx.conn, key)

    outcomes = await asyncio.gather(
        store.write(lambda tx: once(tx, "a")),
        store.write(twice),
        store.write(lambda tx: once(tx, "b")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), IntegrityError, type(None)]
    with pytest.raises(IntegrityError):
        await store.write(twice)
    await store.write(lambda tx: once(tx, "c"))
    assert await keys(store) == ["a", "b", "c"]


async def test_a_reader_sees_one_moment_and_the_next_reader_the_next(store: Store) -> None:
    async with store.read() as conn:
        assert list(await ALL.all(conn)) == []
        await store.write(lambda tx: add(tx.conn, "later"))
        assert list(await ALL.all(conn)) == []
    assert await keys(store) == ["later"]


async def test_more_readers_than_connections_take_turns(store: Store) -> None:
    together = asyncio.Event()

    async def read() -> int:
        async with store.read() as conn:
            await asyncio.wait_for(together.wait(), 10)
            return len(await ALL.all(conn))

    readers = [asyncio.create_task(read()) for _ in range(20)]
    await asyncio.sleep(0)
    together.set()
    assert await asyncio.gather(*readers) == [0] * 20


def test_what_would_be_another_text_each_time_is_refused() -> None:
    several = Prepared(select(setting.c.key).where(setting.c.key.in_(bindparam("keys", expanding=True))))
    with pytest.raises(AssertionError, match="another text"):
        several._text  # noqa: B018 — compiled when first used


def test_a_column_that_a_record_leaves_out_gets_its_default() -> None:
    class Slim(Record, frozen=True, kw_only=True):
        id: str

    defaults = Mapper(Slim, node)._defaults
    assert (defaults["availability"], defaults["epoch"], defaults["lost_at"]) == ("active", 0, None)


@pytest.fixture
async def file(sqlite_template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "argosy.db"
    path.write_bytes(sqlite_template.read_bytes())
    return path


async def test_the_writer_waits_for_a_lock_that_somebody_else_holds(file: Path) -> None:
    store = await Store.open(f"sqlite:///{file}")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.write(lambda tx: add(tx.conn, "patient")))
    assert await keys(store) == []  # nobody else waits with it
    await asyncio.sleep(0)
    assert not waiting.done()
    other.execute("COMMIT")
    await asyncio.wait_for(waiting, 10)
    assert await keys(store) == ["patient"]
    other.close()
    await store.close()


async def test_a_lock_that_is_never_given_back_is_an_outage_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "_PATIENCE_MS", 20)
    store = await Store.open(f"sqlite:///{file}")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked"):
        await store.write(lambda tx: add(tx.conn, "too soon"))
    other.execute("COMMIT")
    await store.write(lambda tx: add(tx.conn, "now"))
    assert await keys(store) == ["now"]
    other.close()
    await store.close()


async def test_the_log_is_copied_into_the_database_while_it_is_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "_CHECKPOINT_CHANGES", 10)
    store = await Store.open(f"sqlite:///{file}")

    async def large(tx: Tx, number: int) -> None:
        await add(tx.conn, f"{number:02}", value=bytes(4096))

    for number in range(40):
        await store.write(partial(large, number=number))
    size = file.with_name("argosy.db-wal").stat().st_size
    assert size < 40 * 2 * 4096, "never copied, the log would hold every page that was written"
    assert len(await keys(store)) == 40
    await store.close()


async def test_a_log_that_cannot_be_copied_stays_and_the_commit_counts(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "_CHECKPOINT_CHANGES", 1)
    monkeypatch.setattr(inline, "_COPY", "PRAGMA there is none such")
    store = await Store.open(f"sqlite:///{file}")
    with capture_logs() as logs:
        await store.write(lambda tx: add(tx.conn, "kept"))
    assert "cannot be copied" in logs[0]["event"]
    assert await keys(store) == ["kept"]
    await store.close()


async def test_a_change_is_made_once_for_each_set_of_columns(store: Store) -> None:
    from_sets: Any = Mapper(_Key, setting).edit(setting.c.key == bindparam("of_key"))

    async def unit(tx: Tx) -> list[int]:
        await add(tx.conn, "a")
        hits = [await from_sets.run(tx.conn, {"value": value}, of_key="a") for value in (b"1", b"2")]
        return [*hits, await from_sets.run(tx.conn, {"key": "b", "value": b"3"}, of_key="a")]

    assert await store.write(unit) == [1, 1, 1]
    assert len(from_sets._made) == 2
    assert await keys(store) == ["b"]


class _Key(Record, frozen=True, kw_only=True):
    key: str
    value: bytes
