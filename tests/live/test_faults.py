"""What a user gets wrong and what a node runs out of: a reason in `container.one` that says it, and everybody else unaffected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts import images, registry
from tests.hosts.api import Container, Reason
from tests.hosts.engines import Host, Lab
from tests.hosts.registry import Registry
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import on, plain, web

pytestmark = pytest.mark.live


@pytest.fixture
def bystander(stack: Stack) -> Iterator[Container]:
    """A container on every host, which must not notice anything of the test."""
    made = stack.api.create("bystander", images.WEB_1, 3, **web())
    found = waiting.running(stack, made.id, 3)
    before = witness.sole(stack, made.id, 3)
    yield found
    waiting.running(stack, made.id, 3, within=1)
    assert witness.sole(stack, made.id, 3) == before


def told(container: Container, code: str) -> Reason:
    """The reason with this code, from an instance or else from the container."""
    given = [one.reason for one in container.instances if one.reason is not None]
    return next(reason for reason in [*given, container.reason] if reason is not None and reason.code == code)


# --- images


def test_an_image_that_does_not_exist(stack: Stack, bystander: Container, open_registry: Registry) -> None:
    image = f"{open_registry.address}/team/missing:7"
    container = stack.api.create("bad", image, 1, **plain())
    seen = waiting.explained(stack, container.id, "image_not_found")
    assert "missing" in told(seen, "image_not_found").message
    assert seen.status in ("creating", "error")
    assert seen.reason is not None


def test_a_registry_that_cannot_be_reached_is_tried_again(stack: Stack, bystander: Container) -> None:
    container = stack.api.create("bad", f"{stack.lab.ci_address}:5999/team/web:1", 1, **plain())
    seen = waiting.explained(stack, container.id, "image_pull_failed")
    assert told(seen, "image_pull_failed").next_at is not None


def test_a_private_image_needs_its_password_and_gets_it(stack: Stack, bystander: Container, lab: Lab) -> None:
    address = f"{lab.ci_address}:5001"
    with registry.start(stack.directory / "private", address, "alice", "sesame", spawn=lab.ci_spawn) as private:
        reference = private.push(stack.hosts[0], images.WEB_2, "team/web", "2")
        denied = stack.api.create("denied", reference, 1, **web(placement=on("h2")))
        waiting.explained(stack, denied.id, "image_denied")
        credentials = {"username": "alice", "password": "sesame"}
        stack.api.update(denied.id, credentials=credentials)
        stack.api.deploy(denied.id)
        seen = waiting.running(stack, denied.id, 1)
        assert stack.host_of(seen.instances[-1].node_id).name == "h2"
        stack.api.remove(denied.id)
        waiting.removed(stack, denied.id)


def test_a_command_that_is_not_in_the_image(stack: Stack, bystander: Container) -> None:
    container = stack.api.create("bad", images.BUSYBOX, 1, **plain(command=["/no/such/program"]))
    seen = waiting.until(
        lambda: stack.api.one(container.id),
        lambda one: (
            any(each.reason and "/no/such/program" in each.reason.message for each in one.instances)
            or (one.reason is not None and "/no/such/program" in one.reason.message)
        ),
        within=20,
        saying="the reason names the program",
    )
    assert seen.status in ("creating", "error")


# --- ports


def test_a_host_port_taken_by_somebody_else(stack: Stack, bystander: Container) -> None:
    host = stack.hosts[0]
    foreign = host.docker().containers.run(images.WEB_1, name="foreign", detach=True, ports={"8080/tcp": 9090})
    ports = [{"port": 8080, "hostPort": 9090}]
    pinned = stack.api.create("pinned", images.WEB_1, 1, **web(ports=ports, placement=on("h1")))
    seen = waiting.explained(stack, pinned.id, "port_taken")
    assert "9090" in told(seen, "port_taken").message
    elsewhere = stack.api.create("elsewhere", images.WEB_1, 2, **web(ports=ports))
    waiting.running(stack, elsewhere.id, 2, within=40)
    assert witness.spread(stack, elsewhere.id) == {"h2": 1, "h3": 1}
    stack.api.remove(elsewhere.id)
    foreign.remove(force=True)
    waiting.running(stack, pinned.id, 1, within=90)
    assert witness.spread(stack, pinned.id) == {"h1": 1}


def test_more_replicas_than_hosts_with_the_port(stack: Stack, bystander: Container) -> None:
    container = stack.api.create("web", images.WEB_1, 4, **web(ports=[{"port": 8080, "hostPort": 9091}]))
    seen = waiting.explained(stack, container.id, "unplaced")
    assert "port" in told(seen, "unplaced").message
    waiting.until(
        lambda: stack.api.one(container.id), lambda one: len(one.healthy()) == 3, within=20, saying="three of four run"
    )
    stack.api.scale(container.id, 3)
    waiting.running(stack, container.id, 3)


# --- memory and placement


def test_more_memory_than_any_node_has(stack: Stack, bystander: Container) -> None:
    container = stack.api.create("huge", images.BUSYBOX, 2, **plain(resources={"memoryLimit": "64Ti"}))
    seen = waiting.explained(stack, container.id, "unplaced")
    assert "3 of 3 nodes lack 64 TiB" in told(seen, "unplaced").message
    assert seen.reason is not None
    assert "3 of 3 nodes lack 64 TiB" in seen.reason.message
    assert {one.status for one in seen.instances} == {"pending"}
    assert {one.node_id for one in seen.instances} == {None}


def test_a_constraint_that_no_node_meets(stack: Stack, bystander: Container) -> None:
    container = stack.api.create("lost", images.BUSYBOX, 1, **plain(placement=on("h9")))
    assert "host" in told(waiting.explained(stack, container.id, "unplaced"), "unplaced").message
    stack.api.update(container.id, placement=on("h3"))
    stack.api.deploy(container.id)
    waiting.running(stack, container.id, 1)
    assert witness.spread(stack, container.id) == {"h3": 1}


def test_more_memory_than_its_own_limit(stack: Stack, bystander: Container) -> None:
    """A program that takes all it can get is killed at its limit and started again, and it is said why."""
    greedy = ["sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"]
    container = stack.api.create(
        "greedy", images.BUSYBOX, 1, **plain(command=greedy, resources={"memoryLimit": "16Mi"})
    )
    seen = waiting.explained(stack, container.id, "out_of_memory")
    assert "memory" in told(seen, "out_of_memory").message
    (made,) = witness.seen(stack, container.id)
    limit = stack.lab.host(made.host).docker().api.inspect_container(made.engine_id)["HostConfig"]["Memory"]
    assert limit == 16 * 2**20


# --- what a node refuses


@pytest.mark.parametrize(
    "asked",
    [
        {"security": {"privileged": True}},
        {"security": {"hostNetwork": True}},
        {"security": {"hostPid": True}},
        {"volumes": [{"name": "etc", "mountPath": "/host", "hostPath": "/etc"}]},
    ],
    ids=["privileged", "host network", "host pid", "host path"],
)
def test_a_node_refuses_by_default_what_would_own_it(stack: Stack, bystander: Container, asked: dict[str, Any]) -> None:
    container = stack.api.create("owner", images.BUSYBOX, 1, **plain(**asked))
    seen = waiting.explained(stack, container.id, "policy_refused")
    assert told(seen, "policy_refused").message
    assert witness.seen(stack, container.id) == []


# --- a full disk


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two hosts, the second with a small disk for its engine."""
    with Lab(hosts=2, name="disk", disk_mib={"h2": 400}, images=[images.busybox_tar()]) as lab, Stack(lab) as stack:
        yield stack


def fill(host: Host) -> None:
    """To the last byte, most of it without writing."""
    at = f"{host.directory}/data"
    host.run(["sh", "-c", f"fallocate -l $(df --output=avail -B1 {at} | tail -n1) {at}/filler1"], check=False)
    host.run(["sh", "-c", f"cat /dev/zero >{at}/filler2"], check=False)


def test_a_full_disk(small: Stack) -> None:
    host = small.hosts[1]
    before_full = small.api.create("early", images.BUSYBOX, 1, **plain(placement=on("h2")))
    waiting.running(small, before_full.id, 1)
    untouched = witness.sole(small, before_full.id, 1)
    address = f"{small.lab.ci_address}:5000"
    with registry.start(small.directory / "registry", address, spawn=small.lab.ci_spawn) as store:
        image = store.push(small.hosts[0], images.WEB_2, "team/web", "2")
        fill(host)
        pulled = small.api.create("pulled", image, 1, **web(placement=on("h2")))
        present = small.api.create("present", images.WEB_1, 1, **web(placement=on("h2")))
        anywhere = small.api.create("anywhere", image, 1, **web())
        for name in (pulled, present):
            seen = waiting.explained(small, name.id, "disk_full")
            assert re.search("space|free", told(seen, "disk_full").message)
        waiting.running(small, anywhere.id, 1)
        assert witness.spread(small, anywhere.id) == {"h1": 1}
        assert witness.sole(small, before_full.id, 1) == untouched
        host.run(["sh", "-c", f"rm {host.directory}/data/filler*"])
        waiting.running(small, pulled.id, 1, within=90)
        waiting.running(small, present.id, 1, within=90)
