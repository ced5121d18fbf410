"""Nodes without their coordinator: they keep what runs running, come back by themselves after a reboot, and report it later."""

from __future__ import annotations

import contextlib
import time

import httpx
import pytest

from tests.hosts import images
from tests.hosts.api import Instance
from tests.hosts.engines import Host
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import plain, web

pytestmark = pytest.mark.live


def crash(instance: Instance) -> None:
    """Its own process ends with status 1."""
    (port,) = instance.ports
    with httpx.Client(trust_env=False) as client, contextlib.suppress(httpx.TransportError):
        client.get(f"http://{port.address}:{port.host_port}/cgi-bin/exit", timeout=5)


def restarted(stack: Stack, container_id: str, before: set[witness.Seen], victim: witness.Seen) -> witness.Seen:
    """The same engine container as the victim's, started again."""
    now = waiting.until(
        lambda: {one for one in witness.running(stack, container_id) if one.instance == victim.instance},
        lambda found: found and not found & before,
        within=30,
        saying="its node starts the crashed instance again",
    )
    (one,) = now
    assert one.engine_id == victim.engine_id
    return one


def test_a_crashed_instance_is_restarted_by_its_node_and_counted(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    victim = waiting.running(stack, container.id, 3).instances[0]
    before = witness.sole(stack, container.id, 3)
    crash(victim)
    restarted(stack, container.id, before, next(one for one in before if one.instance == victim.id))
    after = waiting.running(stack, container.id, 3)
    assert {one.id: one.restarts for one in after.instances}[victim.id] == 1
    assert len(before & witness.sole(stack, container.id, 3)) == 2


@pytest.mark.parametrize("away", [20, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_while_the_coordinator_is_away_a_node_restarts_what_crashes(stack: Stack, away: int) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    victim = waiting.running(stack, container.id, 3).instances[0]
    before = witness.sole(stack, container.id, 3)
    begun = time.monotonic()
    stack.coordinator.kill()
    crash(victim)
    again = restarted(stack, container.id, before, next(one for one in before if one.instance == victim.id))
    expected = {one for one in before if one.instance != victim.id} | {again}
    waiting.always(
        lambda: witness.running(stack, container.id),
        lambda now: now == expected,
        lasting=away - (time.monotonic() - begun),
        saying="all three run, and the other two were not touched",
    )
    stack.coordinator.start()
    stack.await_nodes(within=90)
    after = waiting.running(stack, container.id, 3)
    assert {one.id: one.restarts for one in after.instances} == {
        one.instance: int(one.instance == victim.id) for one in before
    }, "the restart is reported once"
    assert witness.sole(stack, container.id, 3) == expected


def test_a_container_that_ends_at_once_is_retried_ever_more_slowly(stack: Stack) -> None:
    container = stack.api.create("crash", images.CRASH, 1, **plain(strategy={"progressDeadline": 600}))
    calm = stack.api.create("calm", images.BUSYBOX, 3, **plain())
    waiting.running(stack, calm.id, 3)
    seen = waiting.until(
        lambda: stack.api.one(container.id),
        lambda one: any(each.restarts >= 2 for each in one.instances),
        within=40,
        saying="it is started a third time",
    )
    assert seen.status != "running"
    told = waiting.until(
        lambda: stack.api.one(container.id),
        lambda one: any(each.reason and each.reason.code == "exited" and each.reason.next_at for each in one.instances),
        within=30,
        saying="why, and when the next try is",
    )
    assert any("code 3" in each.reason.message for each in told.instances if each.reason)


def brought_back(stack: Stack, host: Host, container_id: str, count: int) -> set[witness.Seen]:
    return waiting.until(
        lambda: witness.running(stack, container_id, [host]),
        lambda found: len(found) == count,
        within=40,
        saying=f"{host.name} runs its {count} again",
    )


def test_after_a_reboot_without_a_coordinator_a_node_starts_everything_again(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    host = stack.hosts[0]
    stack.coordinator.kill()
    host.power_off()
    host.power_on()
    stack.agent(host).start()
    back = brought_back(stack, host, container.id, 2)
    assert {one.engine_id for one in back} == {one.engine_id for one in before if one.host == host.name}
    stack.coordinator.start()
    stack.await_nodes()
    waiting.running(stack, container.id, 6)
    after = witness.sole(stack, container.id, 6)
    assert {one for one in before if one.host != host.name} <= after
    assert len(witness.seen(stack, container.id)) == 6


def test_what_was_declared_while_a_node_was_away_reaches_it_afterwards(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    for agent in stack.agents:
        agent.kill()
    stack.api.scale(container.id, 1)
    other = stack.api.create("other", images.BUSYBOX, 3, **plain())
    assert len(witness.running(stack, container.id)) == 3
    for agent in stack.agents:
        agent.start()
    stack.await_nodes()
    waiting.running(stack, container.id, 1)
    waiting.running(stack, other.id, 3)
    witness.sole(stack, container.id, 1)
    waiting.until(
        lambda: witness.seen(stack, container.id), lambda left: len(left) == 1, within=20, saying="the others are gone"
    )
