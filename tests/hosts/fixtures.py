"""The fixtures of the live tests: `pytest_plugins = ["tests.hosts.fixtures"]` in conftest.

They fail where the machine is not prepared. A live test that skips itself on such a machine is one that nobody notices
missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.hosts import images
from tests.hosts.engines import Lab
from tests.hosts.errors import LabError
from tests.hosts.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres().__enter__()
    except LabError as reason:
        raise pytest.fail.Exception(f"no PostgreSQL to test with: {reason}", pytrace=False) from None
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    name = f"t_{secrets.token_hex(4)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three hosts with the busybox images, shared: what one test leaves, the next one finds, unless it takes `clean_lab`."""
    try:
        built = Lab(hosts=3, images=[images.busybox_tar()]).__enter__()
    except LabError as reason:
        raise pytest.fail.Exception(f"no lab to test in: {reason}", pytrace=False) from None
    try:
        yield built
    finally:
        built.close()


@pytest.fixture
def clean_lab(lab: Lab) -> Iterator[Lab]:
    """The shared lab, all hosts on, connected and empty; and left so."""
    lab.reset()
    yield lab
    lab.reset()
