"""Statuses and their sentences, from the facts a user would be shown."""

from dataclasses import replace

import pytest

from coordinator.core.explain import Overview, container_status, instance_status
from coordinator.core.filters import HostPorts
from coordinator.core.orchestrate import orchestrate
from coordinator.core.rollout import Rollout
from coordinator.core.room import Ask, Demand
from coordinator.core.slots import ContainerView, InstanceView, Target
from shared.spec.instance import Health, Phase
from shared.spec.reason import (
    COMPLETED,
    DEPLOYING,
    DEPLOYMENT_FAILED,
    EXITED,
    IMAGE_NOT_FOUND,
    NODE_LOST,
    PORT_TAKEN,
    REMOVING,
    STARTING,
    STOPPED,
    UNHEALTHY,
    UNPLACED,
    WAITING_PREVIOUS,
    Reason,
)
from tests.property.world import steady

NOW = 1000.0
TARGET = Target(revision=3)


def container(*instances: InstanceView, replicas: int | None = None, **changes: object) -> ContainerView:
    count = len(instances) if replicas is None else replicas
    return replace(ContainerView(replicas=count, target=TARGET, instances=instances), **changes)  # type: ignore[arg-type]


def instance(slot: int, phase: Phase, health: Health = "unknown", **changes: object) -> InstanceView:
    known = InstanceView(f"ins_{slot}", slot, 3, phase=phase, health=health, node_id="n0", attempt=1)
    return replace(known, **changes)  # type: ignore[arg-type]


def test_running_is_what_was_observed_everywhere() -> None:
    status = container_status(Overview(container(*steady(3, 2))), NOW)
    assert (status.word, status.reason) == ("running", None)


def test_a_deployment_that_is_merely_watched_runs() -> None:
    overview = Overview(container(*steady(3, 2)), rollout=Rollout(stage="monitoring"), ever_healthy=True)
    assert container_status(overview, NOW).word == "running"


def test_nothing_runs_while_an_old_instance_is_left_to_go() -> None:
    old = replace(steady(2, 1)[0], id="ins_old", goal="remove")
    status = container_status(Overview(container(*steady(3, 1), old, replicas=1), ever_healthy=True), NOW)
    assert status.word == "deploying"
    assert status.reason == Reason(DEPLOYING, "1 instance is still stopping")


def test_what_a_lost_node_keeps_is_no_obstacle_once_its_slot_is_served() -> None:
    lost = replace(steady(3, 1)[0], id="ins_lost", lost=True)
    assert container_status(Overview(container(*steady(3, 1), lost, replicas=1)), NOW).word == "running"
    alone = container_status(Overview(container(lost, replicas=1), ever_healthy=True), NOW)
    assert alone.word == "error"
    assert alone.reason == Reason(NODE_LOST, "the instance is not running: on a lost node")


def test_the_sentence_counts_what_is_wrong() -> None:
    crashed = instance(
        1, Phase.STARTING, "unhealthy", attempt=2, reason=Reason(EXITED, "exited with code 1", NOW + 8.0)
    )
    unplaced = instance(0, Phase.PENDING, node_id=None, reason=Reason(UNPLACED, "3 of 5 nodes lack 512 MiB"))
    rest = (each for each in steady(3, 6) if each.slot > 1)
    status = container_status(Overview(container(unplaced, crashed, *rest), ever_healthy=True), NOW)
    assert status.word == "error"
    assert status.reason is not None
    assert status.reason.message == (
        "2 of 6 instances are not running: 1 exited with code 1, next start in 8 s, 1 unplaced (3 of 5 nodes lack 512 MiB)"
    )
    assert status.reason.next_at == NOW + 8.0


def test_progress_is_no_error() -> None:
    pulling, starting = instance(0, Phase.PULLING), instance(1, Phase.RUNNING, "starting")
    first = container_status(Overview(container(pulling, starting)), NOW)
    assert first.word == "creating"
    assert first.reason is not None
    assert first.reason.code in (DEPLOYING, STARTING)
    assert "1 pulls its image" in first.reason.message
    assert "health check has not passed yet" in first.reason.message
    assert container_status(Overview(container(pulling, starting), ever_healthy=True), NOW).word == "deploying"


def test_a_deployment_under_way_tells_what_holds_it_up() -> None:
    new = instance(0, Phase.PENDING, node_id=None, reason=Reason(UNPLACED, "no node has room"))
    view = container(*steady(2, 2), new, replicas=2)
    status = container_status(Overview(view, rollout=Rollout(), ever_healthy=True), NOW)
    assert status.word == "deploying"
    assert status.reason is not None
    assert status.reason.code == UNPLACED
    assert "1 unplaced (no node has room)" in status.reason.message
    assert "1 still of revision 2" in status.reason.message


def test_a_failed_deployment_says_why_and_what_is_left() -> None:
    rejected = instance(0, Phase.REJECTED, reason=Reason(IMAGE_NOT_FOUND, "no such image: web:9"))
    waiting = {0: Reason(WAITING_PREVIOUS, "no such image: web:9", NOW + 4.0)}
    overview = Overview(container(rejected, waiting=waiting), failed="slot 0: the instance was rejected")
    status = container_status(overview, NOW)
    assert status.word == "error"
    assert status.reason == Reason(
        DEPLOYMENT_FAILED,
        "the last deployment failed: slot 0: the instance was rejected; the instance is not running: "
        "waits after a failure (no such image: web:9), next start in 4 s",
        NOW + 4.0,
    )


def test_what_no_node_takes_tells_why_the_last_one_refused() -> None:
    refused = instance(0, Phase.REJECTED, reason=Reason(PORT_TAKEN, "host port 80/tcp is in use"))
    again = replace(
        instance(0, Phase.PENDING, node_id=None, reason=Reason(UNPLACED, "1 of 1 nodes just refused it")),
        id="ins_again",
        avoid_nodes=("n0",),
    )
    status = container_status(Overview(container(refused, again, replicas=1)), NOW)
    assert status.reason is not None
    assert "host port 80/tcp is in use" in status.reason.message


def test_unhealthy_is_an_error_with_the_checks_own_words() -> None:
    sick = instance(0, Phase.RUNNING, "unhealthy", reason=Reason(UNHEALTHY, "GET / answered 500"))
    status = container_status(Overview(container(sick), ever_healthy=True), NOW)
    assert status.word == "error"
    assert status.reason == Reason(UNHEALTHY, "the instance is not running: unhealthy (GET / answered 500)")


@pytest.mark.parametrize(("code", "word"), [(0, "stopped"), (1, "error")])
def test_what_is_not_to_be_restarted_has_ended(code: int, word: str) -> None:
    phase = Phase.STOPPED if code == 0 else Phase.FAILED
    reason = Reason(COMPLETED if code == 0 else EXITED, f"exited with code {code}")
    once = replace(TARGET, restart_policy="never")
    view = container(instance(0, phase, exit_code=code, reason=reason), target=once)
    status = container_status(Overview(view, ever_healthy=True), NOW)
    assert status.word == word
    assert status.reason is not None
    assert status.reason.code == reason.code
    assert orchestrate(view, NOW).commands == ()


def test_stopped_only_when_everything_has() -> None:
    going = replace(steady(3, 1)[0], goal="stop")
    status = container_status(Overview(container(going, desired="stopped")), NOW)
    assert status.word == "deploying"
    gone = replace(going, phase=Phase.STOPPED, health="unknown")
    status = container_status(Overview(container(gone, desired="stopped")), NOW)
    assert (status.word, status.reason) == ("stopped", Reason(STOPPED, "stopped by a user"))
    lost = container_status(Overview(container(replace(going, lost=True), desired="stopped")), NOW)
    assert lost.word == "stopped"
    assert lost.reason is not None
    assert "1 is on a node that is not heard of" in lost.reason.message


def test_what_is_scaled_to_nothing_is_stopped() -> None:
    status = container_status(Overview(container(), ever_healthy=True), NOW)
    assert (status.word, status.reason) == ("stopped", Reason(STOPPED, "scaled to 0"))


def test_deleting_says_what_is_left() -> None:
    going = replace(steady(3, 2)[0], goal="remove")
    status = container_status(Overview(container(going, desired="removed")), NOW)
    assert status.word == "deleting"
    assert status.reason == Reason(REMOVING, "1 instance is still stopping")


def test_an_instance_has_a_word_and_a_reason_whenever_it_is_not_healthy() -> None:
    assert instance_status(steady(3, 1)[0]) == ("running", None)
    for phase in Phase:
        for goal in ("run", "stop", "remove"):
            word, reason = instance_status(instance(0, phase, goal=goal))
            assert word == phase.word
            assert reason is not None
    word, reason = instance_status(instance(0, Phase.RUNNING, "healthy", lost=True))
    assert word == "lost"
    assert reason is not None
    assert reason.code == NODE_LOST


def test_every_state_but_running_has_a_reason() -> None:
    for phase in Phase:
        for goal in ("run", "stop", "remove"):
            for desired in ("running", "stopped", "removed"):
                view = container(instance(0, phase, goal=goal), desired=desired)
                status = container_status(Overview(view), NOW)
                assert status.word == "running" or (status.reason is not None and status.reason.message)


def test_a_slot_gives_way_only_to_the_want_of_its_port() -> None:
    """`orchestrate` reads the scheduler's sentence: they must stay in step."""
    target = replace(TARGET, host_ports=True)
    ask = Ask(Demand("c", ports=frozenset({(80, "tcp")})))
    words = f"3 of 3 nodes {HostPorts().explain(3, ask)}"
    old = steady(2, 1)[0]
    for sentence, expected in ((words, 1), ("3 of 3 nodes lack 512 MiB", 0)):
        new = instance(0, Phase.PENDING, node_id=None, reason=Reason(UNPLACED, sentence))
        view = container(old, new, replicas=1, target=target)
        assert len(orchestrate(view, NOW).commands) == expected
