"""A running Argosy for every live test: three hosts, a coordinator, three agents, shared by the tests of a module.

Each test gets it restored: everything on, connected and healthy, no container left. The product itself is what restores, and a
test after which it cannot is an error of that test; the next one then gets everything new.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import DATABASES
from tests.hosts import registry
from tests.hosts.engines import Lab
from tests.hosts.postgres import Postgres
from tests.hosts.registry import Registry
from tests.hosts.stack import Stack

on_every_database = pytest.mark.parametrize("database_kind", DATABASES, scope="module")
"""For the modules whose scenarios depend on how the coordinator stores things; the others run on the first database."""


@pytest.fixture(scope="module")
def database_kind() -> str:
    return DATABASES[0]


@dataclass
class Stage:
    """Where the stack of a module is kept, and made anew when a test left it beyond repair."""

    lab: Lab
    postgres: Postgres | None
    stack: Stack | None = None
    database: str = ""

    def ready(self) -> Stack:
        if self.stack is None:
            self.lab.reset()
            self.stack = Stack(self.lab, self._new_database()).__enter__()
        return self.stack

    def _new_database(self) -> str:
        if self.postgres is None:
            return ""
        self.database = f"t_live_{secrets.token_hex(4)}"
        return self.postgres.create_database(self.database)

    def restore(self) -> None:
        assert self.stack is not None
        try:
            self.stack.restore()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.stack is not None:
            self.stack.close()
            self.stack = None
        if self.postgres is not None and self.database:
            self.postgres.drop_database(self.database)


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, lab: Lab, database_kind: str) -> Iterator[Stage]:
    postgres = request.getfixturevalue("postgres") if database_kind == "postgresql" else None
    with contextlib.closing(Stage(lab, postgres)) as made:
        yield made


@pytest.fixture
def stack(stage: Stage) -> Iterator[Stack]:
    """Argosy on three hosts, without any container."""
    stack = stage.ready()
    stack.mark()
    yield stack
    stage.restore()


@pytest.fixture(scope="module")
def open_registry(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without a password that the hosts can reach, empty at first."""
    directory = tmp_path_factory.mktemp("registry")
    with registry.start(directory, f"{lab.ci_address}:5000", spawn=lab.ci_spawn) as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the programs said during the test."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.when == "call" and report.failed and isinstance(stack, Stack):
        report.sections.append(("what Argosy's programs said", stack.logs()))
    return report
