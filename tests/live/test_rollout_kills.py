"""kill -9 of the coordinator, and of all agents, in the middle of a rollout: nothing else is touched, and it is finished."""

from __future__ import annotations

import pytest

from tests.hosts import images
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.conftest import on_every_database
from tests.live.declared import plain, web

pytestmark = [pytest.mark.live, on_every_database]


def test_a_killed_coordinator_touches_nothing(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    stack.coordinator.kill()
    assert witness.sole(stack, container.id, 6) == before
    stack.coordinator.start()
    stack.await_nodes()
    after = waiting.running(stack, container.id, 6)
    assert witness.sole(stack, container.id, 6) == before
    assert {one.restarts for one in after.instances} == {0}
    assert all(agent.is_on for agent in stack.agents)


def begun(stack: Stack, container_id: str) -> str:
    """A deployment of WEB_2, the first instances of which run already."""
    deployment = stack.api.deploy(container_id, image=images.WEB_2)
    waiting.until(
        lambda: {one.revision for one in witness.running(stack, container_id)},
        lambda revisions: revisions == {"1", "2"},
        within=20,
        saying="both releases run",
        every=0.01,
    )
    return deployment


def test_a_killed_coordinator_finishes_its_rollout(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    bystander = stack.api.create("bystander", images.BUSYBOX, 3, **plain())
    waiting.running(stack, container.id, 6)
    waiting.running(stack, bystander.id, 3)
    untouched = witness.sole(stack, bystander.id, 3)
    deployment = begun(stack, container.id)
    stack.coordinator.kill()
    half = {one for one in witness.running(stack, container.id) if one.revision == "2"}
    stack.coordinator.start()
    waiting.ended(stack, deployment, "succeeded")
    waiting.running(stack, container.id, 6)
    now = witness.sole(stack, container.id, 6)
    assert half <= now, "what the rollout had done before the kill was done again"
    assert {one.image for one in now} == {images.WEB_2}
    assert witness.sole(stack, bystander.id, 3) == untouched


def test_killed_agents_finish_the_rollout(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    bystander = stack.api.create("bystander", images.BUSYBOX, 3, **plain())
    waiting.running(stack, container.id, 6)
    waiting.running(stack, bystander.id, 3)
    untouched = witness.sole(stack, bystander.id, 3)
    deployment = begun(stack, container.id)
    for agent in stack.agents:
        agent.kill()
        agent.start()
    waiting.ended(stack, deployment, "succeeded")
    waiting.running(stack, container.id, 6)
    assert {one.image for one in witness.sole(stack, container.id, 6)} == {images.WEB_2}
    assert witness.sole(stack, bystander.id, 3) == untouched
