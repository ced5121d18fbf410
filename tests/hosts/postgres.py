"""A private PostgreSQL for a test session, as an unprivileged user, reachable only through its unix socket.

A path is reached from every network namespace, so a coordinator inside a lab uses the same URL as the test. The server
lives in a pid namespace of its own: whatever happens to it, all its processes end together.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.hosts import packages
from tests.hosts.claims import Claim
from tests.hosts.errors import LabError, NotReadyError
from tests.hosts.process import children, kill, sh, wait_until

USER = "nobody"
ALONE = ("unshare", "--pid", "--fork", "--kill-child")
# Durability costs time, and nobody will ever read this data after a power cut.
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{directory}'
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 200
"""


def programs() -> Path:
    """Of the newest version installed."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max(found, key=lambda path: float(path.parent.parent.name)).parent


class Postgres:
    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        packages.require("postgresql", "util-linux")
        self.claim = Claim("pg")
        self.directory = self.claim.directory / "socket"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> None:
        account = pwd.getpwnam(USER)
        self.directory.mkdir(mode=0o700)
        os.chown(self.directory, account.pw_uid, account.pw_gid)
        unprivileged = ("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--")
        data = self.directory / "data"
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        sh(*unprivileged, programs() / "initdb", "-D", data, *options)
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(directory=self.directory))
        with (self.claim.directory / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [*ALONE, *unprivileged, str(programs() / "postgres"), "-D", str(data)],
                env={**self.claim.marker, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        wait_until(self._ready, 30, "PostgreSQL")

    def _ready(self) -> bool:
        assert self._server is not None
        log = (self.claim.directory / "log").read_text(errors="replace")
        if self._server.poll() is not None:
            raise NotReadyError(f"PostgreSQL ended: {log[-2000:]}")
        return "ready to accept connections" in log

    def stop(self) -> None:
        if self._server is not None:
            for first in children(self._server.pid):  # PID 1 in there, gone only when all the others are
                kill(first)
            self._server.wait(10)
            self._server = None
        self.claim.release()

    def url(self, database: str, scheme: str = "postgresql+asyncpg") -> str:
        """For SQLAlchemy; asyncpg itself takes the scheme `postgresql`."""
        return f"{scheme}://postgres@/{database}?host={self.directory}"

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Through psql: its output, unaligned and without headings."""
        options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
        connection = (f"--host={self.directory}", "--username=postgres", f"--dbname={database}")
        return sh(programs() / "psql", *options, *connection, f"--command={statement}")

    def create_database(self, name: str, template: str = "template1") -> str:
        """Its URL. With a migrated template, a test gets a full schema in a fraction of a second."""
        self.execute(f"CREATE DATABASE {quoted(name)} TEMPLATE {quoted(template)}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Whoever is still connected is thrown out."""
        self.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")


def quoted(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise LabError(f"{name!r} is no plain database name")
    return f'"{name}"'
