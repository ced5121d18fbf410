"""The programs as processes: how they start, what they say when they cannot, and how they end."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.hosts import images
from tests.hosts.stack import PORT, STOP_SECONDS, Coordinator, Program, Stack
from tests.live import waiting, witness
from tests.live.declared import plain, web

pytestmark = pytest.mark.live


OTHER_PORT = 8421


@pytest.fixture
def second(stack: Stack) -> Callable[..., Coordinator]:
    """Starts another coordinator, with data of its own, and does not wait for it."""

    def start(database_url: str = "", port: int = OTHER_PORT, **env: str) -> Coordinator:
        name = f"second-{secrets.token_hex(3)}"
        made = Coordinator(stack.lab, stack.directory, database_url, name=name, port=port)
        stack.others.append(made)
        Program.start(made, **env)
        return made

    return start


def one_line(program: Program) -> str:
    """All it said before it ended with a failure: a line, not a traceback."""
    assert program.ended(20) not in (0, None), program.said()
    said = program.said().strip()
    assert "Traceback" not in said, said
    problems = [record for record in program.records() if record["level"] in ("error", "critical")]
    assert len(problems) == 1, said
    return str(problems[0])


def test_a_taken_port(stack: Stack, second: Callable[..., Coordinator]) -> None:
    line = one_line(second(port=PORT))
    assert str(PORT) in line
    assert stack.api.health()["status"] == "ok"


def test_a_database_that_is_none(stack: Stack, second: Callable[..., Coordinator], tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"this is no database" * 1000)
    line = one_line(second(f"sqlite:///{path}"))
    assert str(path) in line
    assert path.read_bytes() == b"this is no database" * 1000


def test_a_database_that_is_not_there(stack: Stack, second: Callable[..., Coordinator], tmp_path: Path) -> None:
    url = f"postgresql://nobody:s3same@/none?host={tmp_path}"
    line = one_line(second(url))
    assert str(tmp_path) in line or "database" in line
    assert "s3same" not in line


def test_a_database_of_a_newer_version(stack: Stack, second: Callable[..., Coordinator]) -> None:
    other = second()
    other.await_health()
    assert other.terminate() == 0
    with closing(sqlite3.connect(other.data / "argosy.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    since = other.mark()
    Program.start(other)
    assert other.ended(20) != 0
    assert "Traceback" not in other.said(since)
    assert "newer" in other.said(since) or "9999" in other.said(since)


def test_a_data_directory_in_use(stack: Stack, second: Callable[..., Coordinator]) -> None:
    line = one_line(second(ARGOSY_DATA_DIR=str(stack.coordinator.data)))
    assert str(stack.coordinator.data) in line
    assert stack.api.health()["status"] == "ok"


IMPOSSIBLE = [
    ("ARGOSY_BIND", "nowhere"),
    ("ARGOSY_BIND", "127.0.0.1:99999"),
    ("ARGOSY_LOG_LEVEL", "loud"),
    ("ARGOSY_DATABASE_URL", "mysql://x"),
    ("ARGOSY_DATA_DIR", "/proc/nothing"),
]


def test_settings_that_cannot_be(second: Callable[..., Coordinator]) -> None:
    started = [(name, value, second(**{name: value})) for name, value in IMPOSSIBLE]
    for name, value, program in started:
        line = one_line(program)
        assert name in line or value in line


def test_sigterm_ends_every_program_in_time_whatever_is_going_on(stack: Stack) -> None:
    container = stack.api.create("tick", images.TICK, 3, **plain())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    ended = threading.Event()

    def follow() -> None:
        fields = {"containerId": container.id, "follow": "true"}
        with stack.api.stream("container.logs", "text/event-stream", **fields) as response:
            first.set()
            for _ in response.iter_lines():
                pass
        ended.set()

    first = threading.Event()
    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    assert first.wait(10)
    stack.api.create("late", images.WEB_1, 3, **web())
    begun = time.monotonic()
    assert stack.coordinator.terminate() == 0
    for agent in stack.agents:
        assert agent.terminate() == 0
    assert time.monotonic() - begun < 4 * STOP_SECONDS
    reader.join(10)
    assert ended.is_set(), "the follower's stream was ended in order"
    assert before <= witness.running(stack, container.id), "programs that stop leave what runs"


def test_a_coordinator_that_stops_lets_its_agents_come_back_at_once(stack: Stack) -> None:
    since = [agent.mark() for agent in stack.agents]
    assert stack.coordinator.terminate() == 0
    stack.coordinator.start()
    begun = time.monotonic()
    stack.await_nodes(within=15)
    assert time.monotonic() - begun < 15
    assert all(agent.is_on for agent in stack.agents)
    assert all("Traceback" not in agent.said(mark) for agent, mark in zip(stack.agents, since, strict=True))


def test_every_line_is_structured(stack: Stack) -> None:
    """But the one for the person who starts it for the first time."""
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    for program in [stack.coordinator, *stack.agents]:
        lines = program.said().splitlines()
        others = [line for line in lines if not line.startswith("{")]
        assert len(others) <= (1 if program is stack.coordinator else 0), others
        assert all("admin token" in line for line in others), others
        assert program.records()
        for record in program.records():
            assert {"event", "level", "timestamp"} <= record.keys()


def test_the_admin_token_is_made_once(stack: Stack) -> None:
    token = stack.coordinator.token
    stack.coordinator.kill()
    stack.coordinator.start()
    assert stack.coordinator.token == token
    assert stack.api.get("system.whoami")["roles"]
