"""A secret value reaches the process that needs it, and is readable nowhere else: no answer, no log, no file, no database."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import DATABASES
from tests.hosts import images
from tests.hosts.postgres import programs
from tests.hosts.process import sh
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.conftest import Stage, on_every_database
from tests.live.declared import web

pytestmark = [pytest.mark.live, on_every_database]

SECRET = "correct-horse-battery-staple-7Qz"
ROTATED = "another-horse-entirely-9Xw"


def files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def clear_text(stack: Stack, stage: Stage, text: str) -> list[str]:
    """Where the text is readable, among all that the programs have written and said."""
    found = [str(path) for path in files(stack.directory) if text.encode() in path.read_bytes()]
    if stage.postgres is not None:
        dump = sh(
            programs() / "pg_dump",
            f"--host={stage.postgres.directory}",
            "--username=postgres",
            f"--dbname={stage.database}",
        )
        assert "CREATE TABLE" in dump
        found += ["the database"] if text in dump else []
    return found


def test_a_secret_value_is_in_the_environment_and_nowhere_else(stack: Stack, stage: Stage) -> None:
    api = stack.api
    api.answers = []
    env = [{"key": "TOKEN", "value": SECRET, "secret": True}, {"key": "PLAIN", "value": "for-all-to-see-5Kd"}]
    container = api.create("web", images.WEB_1, 3, **web(env=env))
    seen = waiting.running(stack, container.id, 3)
    for one in witness.sole(stack, container.id, 3):
        environment = witness.environment(stack.lab.host(one.host), one.engine_id)
        assert environment["TOKEN"] == SECRET
        assert environment["PLAIN"] == "for-all-to-see-5Kd"
    (port,) = seen.instances[0].ports
    inside = httpx.get(f"http://{port.address}:{port.host_port}/cgi-bin/env", trust_env=False).text
    assert f"TOKEN={SECRET}" in inside
    assert {"key": "TOKEN", "value": "***", "secret": True} in seen.env
    for procedure in ("container.releases", "container.deployments", "container.logs"):
        api.get(procedure, containerId=container.id)
    api.get("container.deployment", deploymentId=api.deployments(container.id)[0]["id"])
    api.get("cluster.nodes", clusterId=api.cluster()["id"])
    assert [answer for answer in api.answers if SECRET in answer] == []
    assert any("for-all-to-see-5Kd" in answer for answer in api.answers)
    assert clear_text(stack, stage, SECRET) == []
    assert clear_text(stack, stage, "for-all-to-see-5Kd"), "the search itself finds what is there"


def test_writing_the_mask_back_keeps_the_value_and_a_new_one_replaces_it(stack: Stack, stage: Stage) -> None:
    env = [{"key": "TOKEN", "value": SECRET, "secret": True}]
    container = stack.api.create("web", images.WEB_1, 1, **web(env=env))
    seen = waiting.running(stack, container.id, 1)
    stack.api.update(container.id, env=[*seen.env, {"key": "MORE", "value": "1"}])
    waiting.ended(stack, stack.api.deploy(container.id), "succeeded")
    waiting.running(stack, container.id, 1)
    (one,) = witness.sole(stack, container.id, 1)
    environment = witness.environment(stack.lab.host(one.host), one.engine_id)
    assert (environment["TOKEN"], environment["MORE"]) == (SECRET, "1")
    stack.api.update(container.id, env=[{"key": "TOKEN", "value": ROTATED, "secret": True}])
    waiting.ended(stack, stack.api.deploy(container.id), "succeeded")
    waiting.running(stack, container.id, 1)
    (one,) = witness.sole(stack, container.id, 1)
    assert witness.environment(stack.lab.host(one.host), one.engine_id)["TOKEN"] == ROTATED
    assert clear_text(stack, stage, ROTATED) == []


def test_a_secret_survives_the_coordinator_and_a_reboot_of_its_node(stack: Stack) -> None:
    """The node keeps it sealed to its own key, and opens it again without asking anybody."""
    env = [{"key": "TOKEN", "value": SECRET, "secret": True}]
    container = stack.api.create("web", images.WEB_1, 1, **web(env=env))
    waiting.running(stack, container.id, 1)
    (before,) = witness.sole(stack, container.id, 1)
    host = stack.lab.host(before.host)
    stack.coordinator.kill()
    host.docker().api.remove_container(before.engine_id, force=True)
    again = waiting.until(
        lambda: witness.running(stack, container.id, [host]),
        lambda found: found and before.engine_id not in {one.engine_id for one in found},
        within=20,
        saying="the node makes it again by itself",
    )
    (one,) = again
    assert witness.environment(host, one.engine_id)["TOKEN"] == SECRET


def test_what_is_kept_is_only_its_owners_to_read(stack: Stack) -> None:
    private = [stack.coordinator.data / "admin-token"]
    private += [agent.state / "identity.json" for agent in stack.agents]
    private += [path for path in files(stack.coordinator.data) if "key" in path.name]
    assert len(private) >= 5, "the master key has a file of its own"
    for path in private:
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    token = stack.coordinator.token
    said = stack.coordinator.said()
    assert said.count(token) <= 1, "printed once at most, at the first start"
    for program in stack.agents:
        assert token not in program.said()
    database = stack.coordinator.data / "argosy.db"
    if DATABASES and database.exists():
        assert subprocess.run(["grep", "-q", token, str(database)], check=False).returncode == 1
