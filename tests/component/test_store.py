"""The store on both databases: migrations, group commit, the feed, the lock, and what goes wrong when opening."""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog.testing import capture_logs

from coordinator.store import changes, database, migrate, settings
from coordinator.store.connections import Pooled
from coordinator.store.database import Store, StoreError, Tx
from coordinator.store.tables import change, metadata, setting
from tests.hosts.postgres import Postgres


def put(key: str, value: bytes = b"") -> Callable[[Tx], Awaitable[None]]:
    async def unit(tx: Tx) -> None:
        await tx.conn.execute(insert(setting).values(key=key, value=value))
        tx.changed("cluster", key)

    return unit


async def keys(store: Store) -> set[str]:
    async with store.read() as conn:
        return {row.key for row in await conn.execute(select(setting.c.key))}


async def test_migrations_make_exactly_the_schema_that_the_rows_declare(empty_database_url: str) -> None:
    store = await Store.open(empty_database_url)
    try:
        async with store.read() as conn:
            differences = await conn.run_sync(_differences)
    finally:
        await store.close()
    assert differences == []


def _differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


async def test_opening_again_keeps_what_was_written(database_url: str) -> None:
    store = await Store.open(database_url)
    await store.write(put("kept"))
    await store.close()
    store = await Store.open(database_url)
    assert await keys(store) == {"kept"}
    await store.close()


async def test_a_unit_returns_after_its_commit(store: Store) -> None:
    async def unit(tx: Tx) -> bytes:
        return await settings.put_first(tx, "a", b"1")

    assert await store.write(unit) == b"1"
    async with store.read() as conn:
        assert await settings.get(conn, "a") == b"1"


async def test_many_waiting_units_share_transactions_and_each_gets_its_own_answer(store: Store) -> None:
    async def numbered(number: int) -> int:
        async def unit(tx: Tx) -> int:
            await put(str(number))(tx)
            return number

        return await store.write(unit)

    results = await asyncio.gather(*(numbered(number) for number in range(300)))
    assert results == list(range(300))
    assert len(await keys(store)) == 300
    async with store.read() as conn:
        times = {row.at for row in await conn.execute(select(change.c.at))}
    assert len(times) < 10, "a transaction stamps its changes with one time: 300 units took fewer than 10"


async def test_a_unit_that_raises_undoes_itself_only(store: Store) -> None:
    async def broken(tx: Tx) -> None:
        await put("broken")(tx)
        raise ValueError("no")

    outcomes = await asyncio.gather(
        store.write(put("a")), store.write(broken), store.write(put("a")), store.write(put("b")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, IntegrityError, type(None)]
    assert await keys(store) == {"a", "b"}
    async with store.read() as conn:
        assert [key for _, _, key in await changes.since(conn, 0)] == ["a", "b"]


async def test_a_lone_unit_that_raises_leaves_nothing(store: Store) -> None:
    subscription = store.changes.subscribe("cluster")

    async def broken(tx: Tx) -> None:
        await put("broken")(tx)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.write(broken)
    assert await keys(store) == set()
    assert await subscription.take(0) == frozenset()


async def test_a_cancelled_caller_harms_nobody(store: Store) -> None:
    gate = asyncio.Event()

    async def slow(tx: Tx) -> None:
        await put("slow")(tx)
        await gate.wait()

    running = asyncio.create_task(store.write(slow))
    queued = asyncio.create_task(store.write(put("queued")))
    other = asyncio.create_task(store.write(put("other")))
    await asyncio.sleep(0.05)
    running.cancel()
    queued.cancel()
    gate.set()
    await other
    assert await keys(store) == {"slow", "other"}, "what ran is committed, what had not begun never runs"


async def test_changes_arrive_after_the_commit_once_each_and_only_the_kinds_asked_for(store: Store) -> None:
    subscription = store.changes.subscribe("cluster", "node")

    async def unit(tx: Tx) -> None:
        await put("x")(tx)
        tx.changed("cluster", "x")
        tx.changed("container", "unwanted")

    await store.write(unit)
    assert await subscription.take(0) == {("cluster", "x")}
    assert await subscription.take(0.01) == frozenset()
    subscription.close()
    await store.write(put("y"))
    assert await subscription.take(0) == frozenset()


async def test_changes_published_while_nobody_takes_coalesce(store: Store) -> None:
    subscription = store.changes.subscribe("cluster")

    async def unit(tx: Tx) -> None:
        tx.changed("cluster", "same")

    for _ in range(20):
        await store.write(unit)
    assert await subscription.take(1) == {("cluster", "same")}


async def test_the_feed_is_monotonic_and_can_be_pruned(store: Store) -> None:
    await asyncio.gather(*(store.write(put(str(number))) for number in range(50)))
    async with store.read() as conn:
        found = await changes.since(conn, 0)
        assert [seq for seq, _, _ in found] == sorted({seq for seq, _, _ in found})
        assert await changes.latest(conn) == found[-1][0]
        assert [key for _, _, key in await changes.since(conn, found[-2][0])] == [found[-1][2]]

    async def unit(tx: Tx) -> None:
        await changes.prune(tx.conn, 10)

    await store.write(unit)
    async with store.read() as conn:
        assert await changes.since(conn, 0) == found[-10:]


async def test_a_reader_sees_one_moment(store: Store) -> None:
    async with store.read() as conn:
        before = (await conn.execute(select(setting.c.key))).all()
        await store.write(put("meanwhile"))
        after = (await conn.execute(select(setting.c.key))).all()
    assert before == after == []
    assert await keys(store) == {"meanwhile"}


async def test_readers_cannot_write(store: Store) -> None:
    async with store.read() as conn:
        with pytest.raises(Exception, match=r"read-?only"):
            await conn.execute(update(setting).values(value=b"x"))


async def test_foreign_keys_hold(store: Store) -> None:
    async def unit(tx: Tx) -> None:
        await tx.conn.execute(
            text("INSERT INTO membership (organization_id, user_id, role, joined_at) VALUES ('x', 'y', 'z', 0)")
        )

    with pytest.raises(IntegrityError):
        await store.write(unit)


async def test_a_closed_store_says_so_and_closing_writes_what_waits(database_url: str) -> None:
    store = await Store.open(database_url)
    waiting = [asyncio.create_task(store.write(put(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*waiting)
    with pytest.raises(StoreError, match="closed"):
        await store.write(put("late"))
    store = await Store.open(database_url)
    assert len(await keys(store)) == 20
    await store.close()


async def test_a_newer_schema_is_refused(database_url: str) -> None:
    store = await Store.open(database_url)

    async def unit(tx: Tx) -> None:
        await tx.conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await store.write(unit)
    await store.close()
    with pytest.raises(StoreError, match="schema 9999 of a newer version"):
        await Store.open(database_url)


async def test_one_sqlite_database_has_one_coordinator(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = await Store.open(url)
    with pytest.raises(StoreError, match=f"another coordinator uses the database {tmp_path / 'a.db'}"):
        await Store.open(url)
    await first.close()
    await (await Store.open(url)).close()


async def test_a_file_that_is_no_database_is_one_clear_line_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database, but somebody's notes " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"a\.db cannot be opened: file is not a database"):
        await Store.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


async def test_a_damaged_database_is_one_clear_line(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "a.db"
    whole = sqlite_template.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 3996 + whole[4096:])
    with pytest.raises(StoreError, match=r"a\.db cannot be opened: .+") as caught:
        await Store.open(f"sqlite:///{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite:////nowhere/at/all/a.db", "/nowhere/at/all/a.db cannot be opened: .*No such file or directory"),
        ("sqlite://", "names a file"),
        ("mysql://localhost/x", "'mysql' is not supported"),
        ("nonsense", "malformed"),
        ("postgresql://argosy:hush@127.0.0.1:1/argosy", "cannot be opened: .*Connect call failed"),
    ],
)
async def test_what_cannot_be_opened_is_one_clear_line_without_a_password(url: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence) as caught:
        await Store.open(url)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_a_full_disk_fails_the_batch_and_the_writer_goes_on(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'a.db'}")

    async def limit(tx: Tx, pages: int) -> None:
        await tx.conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    async def tight(tx: Tx) -> None:
        await limit(tx, 1)

    async def roomy(tx: Tx) -> None:
        await limit(tx, 1_000_000)

    await store.write(tight)  # SQLite takes it as "no more than there are now"
    big = b"x" * 4_000_000
    outcomes = await asyncio.gather(*(store.write(put(str(n), big)) for n in range(3)), return_exceptions=True)
    assert all("full" in str(outcome) for outcome in outcomes), outcomes
    await store.write(roomy)
    await store.write(put("afterwards"))
    assert await keys(store) == {"afterwards"}
    await store.close()


async def test_a_defect_in_the_writer_itself_fails_the_batch_and_the_writer_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(store._writer._recorder, "record", broken)
        writes = (store.write(put(key)) for key in ("a", "b"))
        outcomes = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 5)
    assert [type(outcome) for outcome in outcomes] == [StoreError, StoreError]
    assert "a defect" in str(outcomes[0])
    assert [entry["event"] for entry in logs] == ["a batch of writes failed"]
    await asyncio.wait_for(store.write(put("afterwards")), 5)
    assert await keys(store) == {"afterwards"}


async def test_a_postgresql_server_that_throws_everybody_out_is_a_store_error_once(
    postgres: Postgres, postgresql_template: str
) -> None:
    url = postgres.create_database(f"t_{os.urandom(4).hex()}", template=postgresql_template)
    name = make_url(url).database
    out = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    store = await Store.open(url)

    async def thrown_out(tx: Tx) -> None:
        await asyncio.to_thread(postgres.execute, out)
        await tx.conn.execute(select(setting.c.key))

    async def look() -> None:
        async with store.read() as conn:
            await conn.execute(select(setting.c.key))
            await asyncio.to_thread(postgres.execute, out)
            await conn.execute(select(setting.c.key))

    with pytest.raises(StoreError, match="cannot be read"):
        await look()
    with pytest.raises(StoreError, match="cannot be written"):
        await store.write(thrown_out)
    await store.write(put("afterwards"))
    assert await keys(store) == {"afterwards"}
    await store.close()


async def test_a_value_that_no_column_holds_is_the_units_own_trouble(
    postgres: Postgres, postgresql_template: str
) -> None:
    store = await Store.open(postgres.create_database(f"t_{os.urandom(4).hex()}", template=postgresql_template))

    async def number(tx: Tx) -> None:
        await tx.conn.execute(insert(setting).values(key=7, value=b""))

    outcomes = await asyncio.gather(
        *(store.write(unit) for unit in (put("a"), put("nul\0"), number, put("b"))), return_exceptions=True
    )
    assert [isinstance(outcome, DBAPIError) for outcome in outcomes] == [False, True, True, False]
    assert await keys(store) == {"a", "b"}
    async with store.read() as conn:
        with pytest.raises(DBAPIError):
            await conn.execute(select(setting).where(setting.c.key == "nul\0"))
    await store.close()


async def test_one_postgresql_database_has_one_coordinator(
    postgres: Postgres, postgresql_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE_SECONDS", 0.0)
    url = postgres.create_database(f"t_{os.urandom(4).hex()}", template=postgresql_template)
    name = make_url(url).database
    first = await Store.open(url)
    with pytest.raises(StoreError, match=f"another coordinator uses the database .*{name}"):
        await Store.open(url)
    await first.write(put("first"))
    assert isinstance(first._connections, Pooled)
    await first._connections.writer.dispose()  # its connection is gone, and with it the lock
    monkeypatch.setattr(database, "_PATIENCE_SECONDS", 5.0)
    second = await Store.open(url)
    with pytest.raises(StoreError, match="another coordinator uses"):
        await first.write(put("too late"))
    with pytest.raises(StoreError, match="another coordinator uses"):
        await first.ping()
    await second.close()
    await first.write(put("owner again"))
    assert await keys(first) == {"first", "owner again"}
    await first.close()


async def test_ping(store: Store) -> None:
    await store.ping()


def test_migrations_are_part_of_the_package() -> None:
    assert (migrate.MIGRATIONS / "env.py").is_file()
    assert list((migrate.MIGRATIONS / "versions").glob("0*.py"))
    assert sqlite3.sqlite_version_info >= (3, 35), "RETURNING"
