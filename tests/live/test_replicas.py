"""Replicas on three real hosts: made, spread, counted up and down, stopped, started, replaced, removed."""

from __future__ import annotations

import httpx
import pytest

from tests.hosts import images
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import QUICK, ROLLING, delayed, plain, web

pytestmark = pytest.mark.live


def test_six_replicas_spread_evenly_and_run_only_when_healthy(stack: Stack) -> None:
    check = {**QUICK, "startPeriod": 20}
    created = stack.api.create("web", images.WEB_1, 6, **web(healthCheck=check, env=delayed(2)))
    assert created.status == "creating"
    waiting.until(
        lambda: len(witness.running(stack, created.id)),
        lambda count: count == 6,
        within=20,
        saying="six engine containers run, none of which listens yet",
    )
    early = stack.api.one(created.id)
    assert early.status == "creating", "running before its health checks passed"
    assert early.reason is not None
    done = waiting.running(stack, created.id, 6)
    assert witness.spread(stack, created.id) == {"h1": 2, "h2": 2, "h3": 2}
    witness.sole(stack, created.id, 6)
    for one in done.instances:
        (port,) = one.ports
        assert httpx.get(f"http://{port.address}:{port.host_port}/", trust_env=False).text == "1\n"
        assert stack.host_of(one.node_id).address == port.address


def test_scaling_touches_only_what_is_added_or_taken_away(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 6, **web())
    waiting.running(stack, container.id, 6)
    before = witness.sole(stack, container.id, 6)
    stack.api.scale(container.id, 9)
    waiting.running(stack, container.id, 9)
    more = witness.sole(stack, container.id, 9)
    assert before < more
    assert witness.spread(stack, container.id) == {"h1": 3, "h2": 3, "h3": 3}
    stack.api.scale(container.id, 2)
    waiting.running(stack, container.id, 2)
    fewer = witness.sole(stack, container.id, 2)
    assert fewer < before
    waiting.until(
        lambda: witness.seen(stack, container.id), lambda left: len(left) == 2, within=20, saying="the others are gone"
    )


def test_scaling_to_nothing_and_back(stack: Stack) -> None:
    container = stack.api.create("idle", images.BUSYBOX, 2, **plain())
    waiting.running(stack, container.id, 2)
    stack.api.scale(container.id, 0)
    waiting.until(lambda: witness.seen(stack, container.id), lambda left: not left, within=20, saying="nothing is left")
    assert stack.api.one(container.id).instances == []
    stack.api.scale(container.id, 2)
    waiting.running(stack, container.id, 2)
    witness.sole(stack, container.id, 2)


def test_stop_keeps_the_instances_and_start_runs_as_declared(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    stack.api.stop(container.id)
    stopped = waiting.status(stack, container.id, "stopped")
    assert stopped.reason is not None
    kept = witness.seen(stack, container.id)
    assert [one.state for one in kept] == ["exited"] * 3
    assert {one.exit_code for one in kept} == {0}, "ended by SIGTERM, not killed"
    waiting.always(
        lambda: witness.running(stack, container.id), lambda found: not found, lasting=2, saying="nothing starts again"
    )
    stack.api.start(container.id)
    waiting.running(stack, container.id, 3)
    witness.sole(stack, container.id, 3)


def test_restart_replaces_every_instance_one_by_one(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    stack.api.restart(container.id)
    least = 3

    def turned() -> bool:
        nonlocal least
        seen = stack.api.one(container.id)
        least = min(least, len(seen.healthy()))
        return seen.status == "running" and not {one.instance for one in before} & set(waiting.live(seen))

    waiting.until(turned, bool, within=40, saying="every instance is another one")
    assert least == 3, "fewer than the declared replicas were healthy in between"
    after = witness.sole(stack, container.id, 3)
    assert not {one.engine_id for one in before} & {one.engine_id for one in after}


def test_remove_leaves_nothing_on_any_node(stack: Stack) -> None:
    volumes = [{"name": "data", "mountPath": "/data"}]
    container = stack.api.create("web", images.WEB_1, 3, **web(volumes=volumes))
    other = stack.api.create("other", images.BUSYBOX, 3, **plain())
    waiting.running(stack, container.id, 3)
    waiting.running(stack, other.id, 3)
    assert sum(len(host.docker().volumes.list()) for host in stack.hosts) == 3
    untouched = witness.sole(stack, other.id, 3)
    stack.api.remove(container.id)
    waiting.removed(stack, container.id)
    assert witness.seen(stack, container.id) == []
    assert [host.docker().volumes.list() for host in stack.hosts] == [[], [], []]
    assert witness.sole(stack, other.id, 3) == untouched
    again = stack.api.create("web", images.WEB_1, **web())  # the name is free again
    waiting.running(stack, again.id, 1)


def test_an_update_changes_nothing_that_runs_and_a_deploy_rolls_it_out(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    stack.api.update(container.id, env=[{"key": "COLOUR", "value": "green"}], image=images.WEB_2)
    waiting.always(
        lambda: witness.running(stack, container.id), lambda now: now == before, lasting=2, saying="nothing is touched"
    )
    deployment = stack.api.deploy(container.id)
    waiting.ended(stack, deployment, "succeeded")
    after = waiting.running(stack, container.id, 3)
    assert {one.revision for one in after.instances} == {2}
    for one in witness.sole(stack, container.id, 3):
        assert one.image == images.WEB_2
        assert witness.environment(stack.lab.host(one.host), one.engine_id)["COLOUR"] == "green"


def test_recreate_ends_the_old_before_it_begins_the_new(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 2, **web(strategy={"type": "recreate", "monitor": 1}))
    waiting.running(stack, container.id, 2)
    deployment = stack.api.deploy(container.id, image=images.WEB_2)
    revisions: set[frozenset[str]] = set()

    def finished() -> str:
        revisions.add(frozenset(one.revision for one in witness.running(stack, container.id)))
        return stack.api.deployment(deployment).status

    waiting.until(finished, lambda word: word == "succeeded", within=40, saying="the deployment succeeds")
    assert frozenset({"1", "2"}) not in revisions, "both releases ran at once"
    assert {one.image for one in witness.sole(stack, container.id, 2)} == {images.WEB_2}


def test_a_rollout_keeps_within_its_surge(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 4, **web(strategy={**ROLLING, "maxSurge": 1}))
    waiting.running(stack, container.id, 4)
    deployment = stack.api.deploy(container.id, image=images.WEB_2)
    most, least = 0, 4

    def finished() -> str:
        nonlocal most, least
        seen = stack.api.one(container.id)
        least = min(least, len(seen.healthy()))
        most = max(most, len(witness.running(stack, container.id)))
        return stack.api.deployment(deployment).status

    waiting.until(finished, lambda word: word == "succeeded", within=60, saying="the deployment succeeds")
    assert least == 4
    assert most <= 5
