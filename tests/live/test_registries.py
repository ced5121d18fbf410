"""A registry's password is rotated: the next pull works, without a deploy, and what runs is not touched."""

from __future__ import annotations

import pytest

from tests.hosts import images, registry
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.conftest import on_every_database
from tests.live.declared import web

pytestmark = [pytest.mark.live, on_every_database]

FIRST = "first-password-1Xq"
SECOND = "second-password-2Yw"


def test_a_rotated_password_counts_for_the_next_pull(stack: Stack) -> None:
    api, lab = stack.api, stack.lab
    address = f"{lab.ci_address}:5003"
    directory = stack.directory / "rotating"
    login = {"username": "robot", "password": FIRST}
    with registry.start(directory, address, "robot", FIRST, spawn=lab.ci_spawn) as private:
        reference = private.push(
            stack.hosts[0], images.WEB_1, f"team/{stack.directory.name}", "1"
        )  # known to no engine
        entry = api.call(
            "registry.create",
            organizationId=api.organization()["id"],
            name=f"rotating-{stack.directory.name}",
            type="Custom",
            server=address,
            insecure=True,
            credentials=login,
        )
        assert api.call("registry.test", registryId=entry["id"])["error"] == ""
        container = api.create("web", reference, 1, **web())
        waiting.running(stack, container.id, 1)
        before = witness.sole(stack, container.id, 1)
    with registry.start(directory, address, "robot", SECOND, spawn=lab.ci_spawn):
        assert (
            "does not accept this user name and password" in api.call("registry.test", registryId=entry["id"])["error"]
        )
        api.scale(container.id, 3)
        waiting.explained(stack, container.id, "image_denied")
        api.call("registry.update", registryId=entry["id"], credentials={**login, "password": SECOND})
        waiting.running(stack, container.id, 3, within=90)
        after = witness.sole(stack, container.id, 3)
        assert before < after, "the first one is the very same engine container, and was not restarted"
        assert len({one.host for one in after}) > 1, "the others had to pull"
        assert len(api.deployments(container.id)) == 1, "nobody deployed"
        assert api.call("registry.test", registryId=entry["id"])["ok"]
    for password in (FIRST, SECOND):
        found = [
            path for path in stack.directory.rglob("*") if path.is_file() and password.encode() in path.read_bytes()
        ]
        assert found == [], "no log, no journal and no database shows it"
    api.call("registry.remove", method="DELETE", registryId=entry["id"])
