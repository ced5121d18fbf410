"""Bringing a database up to this version's schema, at every start.

Runs in a thread with an event loop of its own: Alembic imports and reads its scripts while it works. The whole upgrade is one
transaction, on SQLite too, so a start that is killed half-way leaves the old schema. A database that a newer version has written is
refused rather than guessed at.
"""

import asyncio
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from coordinator.store.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
SQLITE_PRAGMAS = (
    "PRAGMA busy_timeout=5000",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA foreign_keys=ON",
)
_UPGRADE_LOCK = 0x4152474F_53590002
_CONNECT_SECONDS = 10


def upgrade(url: URL) -> None:
    """Blocking: call it in a thread. Raises StoreError for a newer schema, else what the driver raises."""
    asyncio.run(_upgrade(url))


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


async def _upgrade(url: URL) -> None:
    sqlite = url.get_backend_name() == "sqlite"
    arguments = {} if sqlite else {"timeout": _CONNECT_SECONDS}
    engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    if sqlite:
        _prepare(engine.sync_engine)
    try:
        async with engine.begin() as conn:
            if not sqlite:  # two coordinators may start at once
                await conn.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
            await conn.run_sync(_run)
    finally:
        await engine.dispose()


def _run(connection: Connection) -> None:
    config = configuration()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise StoreError(f"the database has the schema {current} of a newer version of Argosy: upgrade the coordinator")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _prepare(engine: Any) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
