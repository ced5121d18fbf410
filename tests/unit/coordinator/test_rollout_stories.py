"""Deployments told from start to end, where the exact course matters and not only that it ends well."""

from dataclasses import dataclass, field, replace

import pytest

from coordinator.core.orchestrate import orchestrate
from coordinator.core.rollout import Rollout, RolloutView, Step, cancel, deployment_status, dump, load, step
from coordinator.core.slots import Command, ContainerView, CreateInstance, InstanceView, Retire, Target
from shared.spec.container import Port, Strategy, Template, Volume
from shared.spec.instance import Phase
from shared.spec.reason import (
    IMAGE_NOT_FOUND,
    NODE_LOST,
    PORT_TAKEN,
    REMOVED_OUTSIDE,
    UNPLACED,
    WAITING_PREVIOUS,
    Reason,
)
from tests.property.world import World, steady

OLD = Target(revision=4)
NEW = Target(revision=5)


@dataclass
class Story:
    """A deployment, and the world it meets. `look` takes one step and lets its commands take effect."""

    release: Target = NEW
    previous: Target | None = OLD
    replicas: int = 3
    rollout: Rollout = field(default_factory=Rollout)
    said: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        old = steady(self.previous.revision, self.replicas) if self.previous is not None else ()
        self.world = World(ContainerView(replicas=self.replicas, target=self.release, instances=old))

    def look(self) -> Step:
        view = RolloutView(self.world.view, self.world.deployment_id, self.release, self.previous)
        taken = step(load(dump(self.rollout)), view, self.world.now)
        self.rollout = taken.rollout
        self.said += taken.messages
        self.commands += taken.plan.commands
        self.world.apply(taken.plan.commands, taken.plan.waiting)
        self.world.view = replace(self.world.view, target=taken.target)
        return taken

    def until(self, *stages: str) -> Step:
        for _ in range(200):
            taken = self.look()
            if self.rollout.stage in stages:
                return taken
            self.world.proceed()
        raise AssertionError(f"{self.rollout} never got to {stages}")

    def move_one(self) -> None:
        """Until the first slot has been moved, and the second is on its way."""
        while not self.old_retired():
            self.look()
            self.world.proceed()
        assert self.old_retired() == {"old_0"}

    def new(self) -> list[InstanceView]:
        return [
            each
            for each in self.world.instances
            if each.revision == self.release.revision and each.phase is not Phase.REMOVED and each.goal == "run"
        ]

    def change(self, each: InstanceView, **changes: object) -> None:
        changed = replace(each, **changes)  # type: ignore[arg-type]
        instances = tuple(changed if one.id == each.id else one for one in self.world.instances)
        self.world.view = replace(self.world.view, instances=instances)

    def old_retired(self) -> set[str]:
        return {
            each.instance_id for each in self.commands if isinstance(each, Retire) and each.instance_id[:3] == "old"
        }


def test_a_first_deployment_makes_everything_at_once() -> None:
    story = Story(previous=None)
    first = story.look()
    assert [each.slot for each in first.plan.commands if isinstance(each, CreateInstance)] == [0, 1, 2]
    story.until("monitoring")
    taken = story.until("complete")
    assert taken.succeeded
    assert deployment_status(story.rollout) == "succeeded"
    assert story.said[-3:] == [
        "3 of 3 instances run revision 5",
        "watching revision 5 for 5 s",
        "revision 5 is healthy",
    ]


def test_it_watches_for_as_long_as_declared() -> None:
    story = Story(previous=None, release=replace(NEW, strategy=Strategy(monitor=30)))
    taken = story.until("monitoring")
    assert taken.plan.wake_at == story.world.now + 30
    story.world.now += 29.5
    assert story.look().rollout.stage == "monitoring"
    story.world.now += 0.5
    assert story.look().succeeded


def test_slots_are_moved_one_after_the_other() -> None:
    story = Story()
    assert [type(each) for each in story.look().plan.commands] == [CreateInstance]
    assert story.look().plan.commands == ()  # nothing more until that one is healthy
    for _ in range(6):
        story.world.proceed()
    replaced, made = story.look().plan.commands
    assert isinstance(replaced, Retire)
    assert replaced.instance_id == "old_0"
    assert isinstance(made, CreateInstance)
    assert made.slot == 1


def test_without_surge_as_many_go_first_as_may_be_missing() -> None:
    story = Story(release=replace(NEW, strategy=Strategy(max_surge=0, max_unavailable=2)), replicas=4)
    assert [each.slot for each in story.look().plan.commands if isinstance(each, CreateInstance)] == [0, 1]
    assert story.old_retired() == {"old_0", "old_1"}
    assert story.look().plan.commands == ()
    story.until("complete")


def test_what_does_not_serve_is_replaced_first_and_costs_nothing() -> None:
    story = Story()
    story.change(story.world.instances[2], health="unhealthy")
    first = story.look().plan.commands
    assert [each.slot for each in first if isinstance(each, CreateInstance)] == [2]
    assert story.old_retired() == {"old_2"}


def test_a_replacement_goes_back_to_the_node_of_its_slot() -> None:
    story = Story()
    made = story.look().plan.commands[0]
    assert isinstance(made, CreateInstance)
    assert made.prefer_node == story.world.instances[0].node_id


def test_a_release_that_does_not_get_healthy_is_taken_back() -> None:
    story = Story()
    story.world.bad.add(NEW.revision)
    story.until("rolled_back")
    assert deployment_status(story.rollout) == "rolled_back"
    assert story.rollout.error == "slot 0: the instance is unhealthy"
    assert story.old_retired() == set(), "the old release never stopped serving"
    assert "slot 0: the instance is unhealthy: going back to revision 4" in story.said
    assert story.new() == []


def test_slots_that_were_moved_already_are_moved_back() -> None:
    story = Story()
    story.move_one()
    story.world.bad.add(NEW.revision)
    story.until("rolled_back")
    serving = [each for each in story.world.instances if each.ready]
    assert sorted((each.slot, each.revision) for each in serving) == [(0, 4), (1, 4), (2, 4)]
    assert "old_2" not in story.old_retired()


def test_a_rollback_is_not_rolled_back() -> None:
    story = Story()
    story.move_one()
    story.world.bad |= {NEW.revision, OLD.revision}
    taken = story.until("failed", "rolled_back")
    assert deployment_status(story.rollout) == "failed"
    assert "going back failed as well: slot 0: the instance is unhealthy" in story.rollout.error
    assert taken.target.revision == OLD.revision
    assert taken.plan.commands == ()


def test_without_an_earlier_release_it_fails_and_the_instances_keep_trying() -> None:
    story = Story(previous=None, replicas=1)
    story.look()
    story.world.happen("place", 0)
    story.world.happen("reject", 0)
    taken = story.look()
    assert taken.rollout.stage == "failed"
    assert taken.rollout.error == "slot 0: the instance was rejected: refused"
    plan = orchestrate(story.world.view, story.world.now)
    assert plan.commands == ()
    assert plan.waiting[0] == Reason(WAITING_PREVIOUS, "refused", story.world.now + 1.0)
    assert plan.wake_at == story.world.now + 1.0
    story.world.now += 1.0
    assert orchestrate(story.world.view, story.world.now).commands == (
        CreateInstance(slot=0, revision=5, failures=1, prefer_node=story.world.instances[0].node_id),
    )


def test_a_wait_is_not_put_off_by_a_report_that_is_repeated() -> None:
    story = Story(previous=None, replicas=1)
    story.look()
    story.world.happen("place", 0)
    story.world.happen("reject", 0)
    first = orchestrate(story.world.view, story.world.now)
    story.world.view = replace(story.world.view, waiting=first.waiting)
    story.change(story.world.instances[0], updated_at=story.world.now + 0.9)
    story.world.now += 1.0
    assert orchestrate(story.world.view, story.world.now).commands


def test_left_as_it_is_when_nothing_is_to_happen_by_itself() -> None:
    story = Story(release=replace(NEW, strategy=Strategy(auto_rollback=False)))
    story.world.bad.add(NEW.revision)
    story.until("failed")
    assert story.old_retired() == set()
    assert orchestrate(story.world.view, story.world.now).commands == ()


def test_three_restarts_are_a_failure_and_two_are_not() -> None:
    story = Story(previous=None, replicas=1)
    story.look()
    for _ in range(2):
        story.world.proceed()
    crashing = story.new()[0]
    story.change(crashing, phase=Phase.STARTING, attempt=3, health="unhealthy")
    assert story.look().rollout.stage == "rolling"
    story.change(crashing, phase=Phase.STARTING, attempt=4, health="unhealthy")
    assert story.look().rollout.error == "slot 0: the instance restarted 3 times"


def test_one_crash_while_it_is_watched_is_enough_even_if_nobody_saw_it_down() -> None:
    story = Story()
    story.until("monitoring")
    moved = story.new()[1]
    story.change(moved, attempt=moved.attempt + 1)
    story.until("rolled_back")
    assert story.rollout.error == "slot 1: the instance did not keep running"


def test_an_engine_container_that_somebody_else_removed_is_no_crash() -> None:
    story = Story()
    story.until("monitoring")
    moved = story.new()[1]
    removed = replace(
        moved,
        phase=Phase.STARTING,
        attempt=moved.attempt + 1,
        health="starting",
        reason=Reason(REMOVED_OUTSIDE, "gone"),
    )
    story.change(removed, health="starting")
    assert story.look().rollout.stage == "monitoring"
    story.change(replace(removed, phase=Phase.RUNNING, health="healthy", reason=None))
    story.until("complete")


def test_a_lost_node_is_no_failure_and_its_slot_is_filled_elsewhere() -> None:
    story = Story()
    story.look()
    story.world.happen("place", 0)
    node = story.new()[0].node_id
    assert node is not None
    story.world.lost.add(node)
    story.world.happen("tick", 0)
    story.until("complete")
    assert {each.slot for each in story.new() if each.ready} == {0, 1, 2}


def test_when_the_lost_node_returns_exactly_one_copy_stays() -> None:
    world = World(ContainerView(replicas=2, target=OLD, instances=steady(4, 2)))
    world.happen("lose", 0)
    world.apply(orchestrate(world.view, world.now).commands)
    assert [each.slot for each in world.instances if not each.lost] == [1, 0]
    for _ in range(4):
        world.proceed()
    world.happen("find", 0)
    assert orchestrate(world.view, world.now).commands == (), "the returning node's report decides"
    world.proceed()
    (retired,) = orchestrate(world.view, world.now).commands
    assert isinstance(retired, Retire)
    assert retired.instance_id == "ins_001", "the older of two healthy copies stays"


def test_standing_still_is_a_failure_that_says_where() -> None:
    story = Story(release=replace(NEW, strategy=Strategy(progress_deadline=60)))
    story.look()
    assert story.look().plan.wake_at == story.world.now + 60
    story.change(story.new()[0], reason=Reason(UNPLACED, "3 of 3 nodes lack 8 GiB"))
    story.world.now += 59
    assert story.look().rollout.stage == "rolling"
    story.world.now += 1
    story.until("rolled_back")
    assert story.rollout.error == "no instance got ahead for 60 s; slot 0 is unplaced: 3 of 3 nodes lack 8 GiB"


def test_waiting_for_the_node_with_its_volumes_is_not_standing_still() -> None:
    homed = Target.of(5, Template(image="db:2", volumes=[Volume(name="data", mount_path="/data")]))
    story = Story(release=homed, previous=replace(homed, revision=4), replicas=1)
    story.world.view = replace(story.world.view, homes={0: "n0"})
    story.world.happen("lose", 0)
    taken = story.look()
    assert taken.plan.commands == ()
    assert taken.plan.waiting == {0: Reason(NODE_LOST, "its volumes are on node n0, which is lost")}
    story.world.now += 10_000
    assert story.look().rollout.stage == "rolling"
    story.world.happen("find", 0)
    story.until("complete")


def test_a_slot_with_volumes_is_emptied_before_it_is_filled() -> None:
    homed = Target.of(5, Template(image="db:2", volumes=[Volume(name="data", mount_path="/data")]))
    story = Story(release=homed, previous=replace(homed, revision=4), replicas=2)
    story.world.view = replace(story.world.view, homes={0: "n0", 1: "n1"})
    assert [type(each) for each in story.look().plan.commands] == [Retire]
    waiting = story.look().plan
    assert waiting.commands == ()
    assert waiting.waiting[0].code == WAITING_PREVIOUS
    story.world.happen("end_leaving", 0)
    made = story.look().plan.commands[0]
    assert isinstance(made, CreateInstance)
    assert made.slot == 0
    story.until("complete")


def test_a_draining_home_keeps_its_slot_running() -> None:
    homed = Target.of(4, Template(image="db:2", volumes=[Volume(name="data", mount_path="/data")]))
    view = ContainerView(replicas=1, target=homed, instances=steady(4, 1), homes={0: "n0"})
    world = World(view)
    world.happen("drain", 0)
    assert orchestrate(world.view, world.now).commands == ()


def test_recreating_ends_the_old_before_it_begins() -> None:
    story = Story(release=replace(NEW, strategy=Strategy(type="recreate")))
    assert [type(each) for each in story.look().plan.commands] == [Retire] * 3
    assert story.look().plan.commands == ()
    for _ in range(4):
        story.world.happen("end_leaving", 0)
    assert [type(each) for each in story.look().plan.commands] == [CreateInstance] * 3
    story.until("complete")


def test_a_fixed_host_port_gives_way_where_no_other_node_is_left() -> None:
    ported = Target.of(5, Template(image="web:2", ports=[Port(port=80, host_port=80)]))
    story = Story(release=ported, replicas=2)
    story.look()
    waiting = story.new()[0]
    story.change(waiting, reason=Reason(UNPLACED, "4 of 4 nodes have the host port 80/tcp taken"))
    (retired,) = story.look().plan.commands
    assert isinstance(retired, Retire)
    assert retired.instance_id == "old_0"
    assert story.look().plan.commands == (), "the other slot goes on serving"
    story.until("complete")


def test_one_nodes_own_refusal_is_tried_elsewhere_three_times() -> None:
    story = Story(previous=None, replicas=1)
    for failures in range(3):
        story.look()
        assert story.rollout.stage == "rolling"
        pending = story.new()[-1]
        assert pending.failures == failures
        story.change(pending, node_id="n0", phase=Phase.REJECTED, reason=Reason(PORT_TAKEN, "host port 80 in use"))
        story.world.now += 5
    story.look()
    assert story.rollout.error == "slot 0: the instance was rejected: host port 80 in use"


def test_a_refusing_node_is_avoided_for_one_backoff_and_then_asked_again() -> None:
    view = ContainerView(replicas=1, target=NEW)
    world = World(view)
    world.apply(orchestrate(world.view, world.now).commands)
    world.happen("place", 0)
    node = world.instances[0].node_id
    world.happen("reject_locally", 0)
    world.now += 1.0
    (made,) = orchestrate(world.view, world.now).commands
    assert isinstance(made, CreateInstance)
    assert made.avoid_nodes == (node,)
    world.apply([made])
    world.happen("unplace", 0)
    plan = orchestrate(world.view, world.now)
    assert plan.commands == ()
    assert plan.wake_at == world.now + 1.0
    world.now += 1.0
    _, again = orchestrate(world.view, world.now).commands
    assert again == CreateInstance(slot=0, revision=5, failures=1)


def test_what_was_superseded_halfway_leaves_the_serving_instance_in_place() -> None:
    story = Story()
    story.look()
    later = Story(release=Target(revision=6))
    later.world.view = replace(story.world.view, target=later.release)
    later.world.made = 10
    first = later.look().plan.commands
    assert [each for each in first if isinstance(each, Retire)] == [
        Retire("ins_001", "remove", "another instance serves its slot")
    ]
    later.until("complete")


def test_cancelling_goes_back_and_is_called_cancelled() -> None:
    story = Story()
    story.move_one()
    story.rollout = cancel(story.rollout)
    taken = story.until("cancelled")
    assert taken.target.revision == OLD.revision
    assert deployment_status(story.rollout) == "cancelled"
    assert {each.revision for each in story.world.instances if each.ready} == {4}
    assert cancel(story.rollout) == story.rollout


def test_a_first_deployment_that_is_cancelled_leaves_what_there_is() -> None:
    story = Story(previous=None)
    story.look()
    story.rollout = cancel(story.rollout)
    taken = story.look()
    assert taken.rollout.stage == "cancelled"
    assert taken.plan.commands == ()


def test_a_stopped_container_pauses_its_deployment() -> None:
    story = Story()
    story.look()
    story.world.view = replace(story.world.view, desired="stopped")
    taken = story.look()
    assert taken.rollout.stage == "paused"
    assert deployment_status(taken.rollout) == "in_progress"
    assert {each.goal for each in taken.plan.commands if isinstance(each, Retire)} == {"stop", "remove"}
    story.world.proceed()
    story.world.now += 100_000
    assert story.look().rollout.stage == "paused"
    story.world.view = replace(story.world.view, desired="running")
    assert story.look().rollout.stage == "rolling"
    story.until("complete")
    assert all(each.ready for each in story.world.instances if each.phase is not Phase.REMOVED)


@pytest.mark.parametrize("previous", [OLD, None])
def test_a_paused_deployment_that_is_cancelled_ends_at_once(previous: Target | None) -> None:
    story = Story(previous=previous)
    story.look()
    story.world.view = replace(story.world.view, desired="stopped")
    assert story.look().rollout.stage == "paused"
    story.rollout = cancel(story.rollout)
    taken = story.look()
    assert taken.rollout.stage == "cancelled"
    assert taken.target.revision == (previous or NEW).revision
    assert taken.rollout.reverting is (previous is not None)


def test_what_has_no_instances_claims_no_health() -> None:
    story = Story(replicas=0, previous=None)
    story.until("complete")
    assert not any("healthy" in message for message in story.said if "no instances" not in message)
    assert any("no instances" in message for message in story.said)


def test_removing_the_container_ends_its_deployment() -> None:
    story = Story()
    story.look()
    story.world.view = replace(story.world.view, desired="removed")
    taken = story.look()
    assert taken.rollout.stage == "cancelled"
    removed = orchestrate(story.world.view, story.world.now).commands
    assert all(isinstance(each, Retire) and each.with_volumes for each in removed)
    assert len(removed) == 4


def test_scaling_in_the_middle_is_respected() -> None:
    story = Story()
    story.look()
    story.world.view = replace(story.world.view, replicas=5)
    assert {each.slot for each in story.look().plan.commands if isinstance(each, CreateInstance)} == {3, 4}
    story.world.view = replace(story.world.view, replicas=1)
    assert {each.why for each in story.look().plan.commands if isinstance(each, Retire)} == {"scaled down"}
    story.until("complete")
    assert len(story.new()) == 1


def test_what_runs_once_and_ends_well_is_a_success() -> None:
    once = replace(NEW, restart_policy="on-failure", strategy=Strategy(monitor=0))
    story = Story(release=once, previous=None, replicas=1)
    story.look()
    story.change(story.new()[0], phase=Phase.STOPPED, node_id="n0", attempt=1, exit_code=0)
    assert story.look().succeeded


def test_what_is_not_found_in_the_registry_is_no_nodes_own_fault() -> None:
    story = Story()
    story.look()
    story.change(
        story.new()[0], phase=Phase.REJECTED, node_id="n0", reason=Reason(IMAGE_NOT_FOUND, "no such image: web:2")
    )
    story.look()
    assert story.rollout.error == "slot 0: the instance was rejected: no such image: web:2"
    assert story.old_retired() == set()
