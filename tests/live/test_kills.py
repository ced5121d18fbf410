"""kill -9 of agents and engines, and engine containers removed behind their backs: nothing is touched, nothing runs twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts import images
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import plain, web

pytestmark = pytest.mark.live


def test_a_killed_agent_leaves_its_instances_running_and_adopts_them(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    for agent in stack.agents:
        agent.kill()
    for agent in stack.agents:
        agent.start()
    stack.await_nodes()
    after = waiting.running(stack, container.id, 6)
    assert witness.sole(stack, container.id, 6) == before
    assert {one.restarts for one in after.instances} == {0}


@pytest.mark.parametrize("state", ["none", "created", "running"])
def test_an_agent_killed_while_it_creates_makes_no_duplicate(stack: Stack, state: str) -> None:
    """The windows between an engine container's creation, its start, and the agent's notes of both."""
    agent = stack.agents[0]
    container = stack.api.create("idle", images.BUSYBOX, 6, **plain())
    waiting.until(
        lambda: {one.state for one in witness.seen(stack, container.id, [agent.host])},
        lambda states: state == "none" or "running" in states or state in states,
        within=20,
        saying="the agent has come so far",
        every=0.002,
    )
    agent.kill()
    agent.start()
    waiting.running(stack, container.id, 6)
    witness.sole(stack, container.id, 6)
    assert len(witness.seen(stack, container.id)) == 6


def test_a_killed_engine_gets_its_instances_back(stack: Stack) -> None:
    """Without live-restore the engine ends what it finds on its next start: the node starts the same engine containers again."""
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    host = stack.hosts[0]
    host.kill_engine()
    waiting.until(lambda: stack.node(host).status, lambda word: word == "engine_down", within=20, saying="it is told")
    assert stack.node(host).reason is not None
    host.start_engine(host.engine_args)
    waiting.until(lambda: stack.node(host).status, lambda word: word == "running", within=30, saying="the node is back")
    waiting.running(stack, container.id, 6, within=40)
    after = witness.sole(stack, container.id, 6)
    assert {one for one in before if one.host != host.name} <= after
    waiting.always(
        lambda: len(witness.seen(stack, container.id)), lambda count: count == 6, lasting=2, saying="no duplicates"
    )


def test_an_engine_with_live_restore_is_killed_unnoticed(stack: Stack) -> None:
    host = stack.hosts[0]
    host.stop_engine()
    host.start_engine(["--live-restore"])
    stack.await_nodes()
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    host.kill_engine()
    waiting.until(lambda: stack.node(host).status, lambda word: word == "engine_down", within=20, saying="it is told")
    host.start_engine(["--live-restore"])
    stack.await_nodes()
    after = waiting.running(stack, container.id, 3)
    assert witness.sole(stack, container.id, 3) == before
    assert {one.restarts for one in after.instances} == {0}


def test_an_unreachable_engine_is_a_status_and_not_a_crash(stack: Stack) -> None:
    agent = stack.agents[0]
    pid = agent.pid
    agent.host.stop_engine()
    waiting.until(
        lambda: stack.node(agent.host).status, lambda word: word == "engine_down", within=20, saying="it is told"
    )
    container = stack.api.create("idle", images.BUSYBOX, 2, **plain())
    waiting.running(stack, container.id, 2)
    assert agent.host.name not in witness.spread(stack, container.id)
    agent.kill()
    agent.start()  # an agent that starts without an engine waits for it, too
    waiting.until(
        lambda: stack.node(agent.host).status, lambda word: word == "engine_down", within=20, saying="it connects"
    )
    assert agent.is_on
    assert agent.pid != pid
    agent.host.start_engine(agent.host.engine_args)
    stack.await_nodes()


def test_an_instance_removed_by_other_means_is_replaced(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    victim = min(before, key=lambda one: one.host)
    stack.lab.host(victim.host).docker().api.remove_container(victim.engine_id, force=True)
    waiting.until(
        lambda: witness.running(stack, container.id),
        lambda now: len(now) == 3 and victim.engine_id not in {one.engine_id for one in now},
        within=20,
        saying="another one runs in its place",
    )
    waiting.running(stack, container.id, 3)
    assert before - {victim} <= witness.sole(stack, container.id, 3)


def test_engine_containers_of_others_are_never_touched(stack: Stack) -> None:
    host = stack.hosts[0]
    foreign = host.docker().containers.run(images.BUSYBOX, name="foreign", detach=True)
    looks_like = host.docker().containers.run(
        images.BUSYBOX, name="web-0", detach=True, labels={"argosy.node": "node_other", "argosy.container": "web"}
    )
    before = started_at(foreign, looks_like)
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    stack.agents[0].kill()
    stack.agents[0].start()
    stack.await_nodes()
    stack.api.remove(container.id)
    waiting.removed(stack, container.id)
    assert started_at(foreign, looks_like) == before
    for each in (foreign, looks_like):
        each.remove(force=True)


def started_at(*engine_containers: Any) -> list[tuple[str, str]]:
    for each in engine_containers:
        each.reload()
    return [(each.status, each.attrs["State"]["StartedAt"]) for each in engine_containers]
