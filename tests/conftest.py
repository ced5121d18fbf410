"""Fixtures every kind of test may use: a database of each kind, a store on it, and a watch over the event loop.

`ARGOSY_TEST_DATABASES=sqlite` (or `postgresql`) chooses a subset. SQLite files are copies of one that was migrated once a session,
PostgreSQL's database is emptied after each test: a test gets its full schema in milliseconds.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from blockbuster import blockbuster_ctx
from sqlalchemy import make_url

from coordinator.store import migrate
from coordinator.store.database import Store
from coordinator.store.tables import metadata
from tests.hosts.postgres import Postgres

pytest_plugins = ["tests.hosts.fixtures"]

DATABASES = os.environ.get("ARGOSY_TEST_DATABASES", "sqlite,postgresql").split(",")
_TEMPLATE = "argosy_template"
_REUSED = "argosy_reused"
_EMPTY = "; ".join(  # whoever a test left connected goes first: nothing may wait for its locks
    [
        (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ),
        "SET session_replication_role = replica",  # in any order, whatever refers to whatever
        *(f"DELETE FROM {table.name}" for table in metadata.sorted_tables),
        "ALTER SEQUENCE change_seq_seq RESTART",
        f"UPDATE alembic_version SET version_num = '{ScriptDirectory.from_config(migrate.configuration()).get_current_head()}'",
    ]
)
_INLINE = {
    "__await__",
    "begin",
    "begin_writing",
    "commit",
    "execute",
    "executemany",
    "fetchone",
    "fetchmany",
    "fetchall",
    "query",
    "change",
    "change_each",
    "undo",
    "stop",
    "create_function",
}


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate.upgrade(make_url(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgres: Postgres) -> str:
    migrate.upgrade(make_url(postgres.create_database(_TEMPLATE)))
    return _TEMPLATE


@pytest.fixture(scope="session")
def postgresql_database(postgres: Postgres, postgresql_template: str) -> str:
    """For one test after the other: emptying it takes a fraction of what copying the template does."""
    return postgres.create_database(_REUSED, template=postgresql_template)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database without rows, of the test's own."""
    if request.param == "sqlite":
        path = tmp_path / "argosy.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    yield request.getfixturevalue("postgresql_database")
    server.execute(_EMPTY, _REUSED)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that was never opened."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'argosy.db'}"
    url: str = request.getfixturevalue("database")
    return url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """In component and system tests, a blocking call made by our code inside the event loop is an error."""
    if not {"component", "system"} & set(request.path.parts):
        yield
        return
    with blockbuster_ctx(scanned_modules=["coordinator", "agent", "shared"]) as watch:
        watch.functions["os.path.abspath"].deactivate()  # reads the working directory: no disk, no wait
        for function in watch.functions.values():
            # Migrations run in a thread whose event loop is theirs alone.
            function.can_block_in("coordinator/store/migrate.py", {"upgrade", "_run"})
            # SQLite's statements run inline on purpose: see there.
            function.can_block_in("coordinator/store/inline.py", _INLINE)
            # A new connection looks for the user's password file.
            function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_arguments"})
            # Log lines go to a captured stream here.
            function.can_block_in("structlog/_output.py", {"msg"})
        yield
