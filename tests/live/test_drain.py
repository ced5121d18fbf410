"""Nodes taken out of service and put back, and nodes that leave for good."""

from __future__ import annotations

import pytest

from tests.hosts import images
from tests.hosts.stack import Agent, Stack
from tests.live import waiting, witness
from tests.live.declared import plain, web

pytestmark = pytest.mark.live


def test_a_cordoned_node_takes_nothing_new_and_keeps_what_it_has(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    node_id = stack.node_ids["h1"]
    assert stack.api.on_node("cordon", node_id).availability == "cordoned"
    assert stack.node(stack.hosts[0]).status == "cordoned"
    stack.api.scale(container.id, 9)
    waiting.running(stack, container.id, 9)
    assert witness.spread(stack, container.id) == {"h1": 1, "h2": 4, "h3": 4}
    assert before <= witness.sole(stack, container.id, 9)
    stack.api.on_node("uncordon", node_id)
    stack.api.scale(container.id, 12)
    waiting.running(stack, container.id, 12)
    assert witness.spread(stack, container.id) == {"h1": 4, "h2": 4, "h3": 4}


def test_a_drain_moves_everything_and_serves_throughout(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    node_id = stack.node_ids["h2"]
    stack.api.on_node("drain", node_id)
    least = 6

    def drained() -> str:
        nonlocal least
        least = min(least, len(stack.api.one(container.id).healthy()))
        return stack.node(stack.hosts[1]).status

    waiting.until(drained, lambda word: word == "drained", within=60, saying="the node is drained")
    assert least == 6, "fewer than the declared replicas were healthy in between"
    waiting.running(stack, container.id, 6)
    assert witness.spread(stack, container.id) == {"h1": 3, "h3": 3}
    assert witness.seen(stack, container.id, [stack.hosts[1]]) == []
    assert {one for one in before if one.host != "h2"} <= witness.sole(stack, container.id, 6)
    stack.api.on_node("uncordon", node_id)
    waiting.until(
        lambda: stack.node(stack.hosts[1]).status, lambda word: word == "running", within=5, saying="it is back"
    )


def test_a_drain_survives_the_coordinator(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    stack.api.on_node("drain", stack.node_ids["h2"])
    stack.coordinator.kill()
    stack.coordinator.start()
    waiting.until(
        lambda: stack.node(stack.hosts[1]).status, lambda word: word == "drained", within=60, saying="it is drained"
    )
    waiting.running(stack, container.id, 6)
    witness.sole(stack, container.id, 6)
    assert set(witness.spread(stack, container.id)) <= {"h1", "h3"}


def test_a_drain_that_cannot_go_on_says_why(stack: Stack) -> None:
    """Each host has the port once, so there is no third place for the third replica."""
    container = stack.api.create("web", images.WEB_1, 3, **web(ports=[{"port": 8080, "hostPort": 9092}]))
    waiting.running(stack, container.id, 3)
    stack.api.on_node("drain", stack.node_ids["h1"])
    node = waiting.until(
        lambda: stack.node(stack.hosts[0]),
        lambda node: node.reason is not None and node.reason.code == "drain_blocked",
        within=30,
        saying="the drain says that somebody has to act",
    )
    assert node.status == "draining"
    stack.api.scale(container.id, 2)
    waiting.until(
        lambda: stack.node(stack.hosts[0]).status, lambda word: word == "drained", within=30, saying="it goes on then"
    )


def test_a_removed_node_is_emptied_first_and_refused_afterwards(stack: Stack) -> None:
    """A fourth node, on the engine of the first host."""
    fourth = Agent(stack.hosts[0], stack.coordinator.url, stack.directory, "fourth")
    stack.others.append(fourth)
    fourth.start(ARGOSY_JOIN=stack.api.join_token())
    node = waiting.until(
        lambda: [node for node in stack.api.nodes() if node.labels["host"] == "fourth"],
        lambda found: found and found[0].status == "running",
        within=15,
        saying="the fourth node is there",
    )[0]
    container = stack.api.create("web", images.WEB_1, 4, **web())
    bystander = stack.api.create("idle", images.BUSYBOX, 3, **plain(placement={"constraints": ["host!=fourth"]}))
    seen = waiting.running(stack, container.id, 4)
    waiting.running(stack, bystander.id, 3)
    assert node.id in {one.node_id for one in seen.instances}
    untouched = witness.sole(stack, bystander.id, 3)
    stack.api.remove_node(node.id)
    waiting.until(
        lambda: {node.id for node in stack.api.nodes()}, lambda ids: node.id not in ids, within=60, saying="it is gone"
    )
    after = waiting.running(stack, container.id, 4)
    assert node.id not in {one.node_id for one in after.instances}
    witness.sole(stack, container.id, 4)
    assert witness.sole(stack, bystander.id, 3) == untouched
    assert fourth.ended(15) == 3, "an agent that was removed does not try again"
    assert "removed" in fourth.tail(3)


def test_a_node_whose_workload_has_no_other_place_is_not_removed_without_force(stack: Stack) -> None:
    memory = stack.node(stack.hosts[0]).capacity["memoryBytes"]
    most = {"resources": {"memoryRequest": str(int(memory * 0.8))}}
    container = stack.api.create("big", images.BUSYBOX, 3, **plain(**most))
    waiting.running(stack, container.id, 3)
    refused = waiting.refusal(lambda: stack.api.remove_node(stack.node_ids["h1"]))
    assert (refused.status, refused.code) == (412, "PRECONDITION_FAILED")
    assert stack.node(stack.hosts[0]).status == "running"
