"""Hosts that are cut or switched off: lost after the lease and no earlier, replaced elsewhere, and one copy when they return."""

from __future__ import annotations

import time

import pytest

from tests.hosts import images
from tests.hosts.api import Container
from tests.hosts.engines import Host
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import plain, web

pytestmark = pytest.mark.live

LEASE = 6.0
"""Three heartbeats of two seconds."""


def lost(stack: Stack, host: Host) -> float:
    """How long until the node counts as lost."""
    begun = time.monotonic()
    waiting.until(
        lambda: stack.node(host).status, lambda word: word == "lost", within=25, saying=f"{host.name} is lost"
    )
    return time.monotonic() - begun


def replaced(stack: Stack, container_id: str, host: Host, replicas: int) -> Container:
    """All declared replicas are healthy on the other hosts, and the container is `running` for it."""
    others = set(stack.node_ids.values()) - {stack.node_ids[host.name]}
    return waiting.until(
        lambda: stack.api.one(container_id),
        lambda seen: (
            seen.status == "running" and len([one for one in seen.healthy() if one.node_id in others]) == replicas
        ),
        within=40,
        saying=f"{replicas} healthy instances without {host.name}",
    )


def settled(stack: Stack, container_id: str, replicas: int) -> set[witness.Seen]:
    """Back to the declared count everywhere, and it stays so."""
    stack.await_nodes(within=60)  # the node's next try may be some backoff away
    waiting.running(stack, container_id, replicas)
    waiting.until(
        lambda: witness.seen(stack, container_id),
        lambda left: len(left) == replicas,
        within=30,
        saying="exactly the declared count remains",
    )
    waiting.always(
        lambda: len(witness.seen(stack, container_id)),
        lambda count: count == replicas,
        lasting=2,
        saying="exactly the declared count remains",
    )
    return witness.sole(stack, container_id, replicas)


def test_a_host_cut_off_is_replaced_and_comes_back_to_exactly_the_declared_count(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    host = stack.hosts[0]
    host.cut()
    assert lost(stack, host) > LEASE - 2.5, "lost before its lease was over"
    replaced(stack, container.id, host, 6)
    assert witness.running(stack, container.id, [host]) == {one for one in before if one.host == host.name}, (
        "the cut off node has no reason to stop anything"
    )
    host.heal()
    after = settled(stack, container.id, 6)
    assert {one for one in before if one.host != host.name} <= after, "the other hosts' instances were touched"


def test_a_short_cut_changes_nothing(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    host = stack.hosts[0]
    host.cut()
    waiting.always(lambda: stack.node(host).status, lambda word: word != "lost", lasting=3, saying="within the lease")
    host.heal()
    stack.await_nodes()
    waiting.running(stack, container.id, 6)
    assert witness.sole(stack, container.id, 6) == before


def test_a_host_without_power_is_replaced_and_returns_with_nothing_twice(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    host = stack.hosts[1]
    host.power_off()
    lost(stack, host)
    replaced(stack, container.id, host, 6)
    host.power_on()
    stack.agent(host).start()
    settled(stack, container.id, 6)


def test_a_killed_agent_that_stays_away_is_lost_while_its_instances_run_on(stack: Stack) -> None:
    """`lost` is our ignorance: what runs there runs, and the returning node's report decides which copy stays."""
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    agent = stack.agents[2]
    (left,) = witness.running(stack, container.id, [agent.host])
    agent.kill()
    lost(stack, agent.host)
    replaced(stack, container.id, agent.host, 3)
    assert witness.running(stack, container.id, [agent.host]) == {left}
    agent.start()
    settled(stack, container.id, 3)


def test_the_coordinator_suspects_itself_when_all_are_silent(stack: Stack) -> None:
    container = stack.api.create("idle", images.BUSYBOX, 3, **plain())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    for host in stack.hosts:
        stack.lab.switch.block("ci", host.name)
    waiting.always(
        lambda: {node.status for node in stack.api.nodes()},
        lambda words: "lost" not in words,
        lasting=LEASE + 3,
        saying="a fleet that falls silent at once is not lost at once",
    )
    stack.lab.switch.clear_faults()
    settled(stack, container.id, 3)
    assert witness.sole(stack, container.id, 3) == before


def test_a_lossy_link_moves_nothing(stack: Stack) -> None:
    container = stack.api.create("idle", images.BUSYBOX, 3, **plain())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    stack.lab.switch.lose("h1", 10)
    other = stack.api.create("other", images.WEB_1, 3, **web())
    waiting.always(
        lambda: stack.node(stack.hosts[0]).status, lambda word: word != "lost", lasting=6, saying="it is not lost"
    )
    stack.lab.switch.clear_faults()
    waiting.running(stack, other.id, 3)
    assert witness.sole(stack, container.id, 3) == before
