"""Whatever happens to a container, its commands never take away what serves, and in quiet times it ends as declared."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.orchestrate import backoff, converge, orchestrate
from coordinator.core.slots import ContainerView, CreateInstance, Plan, Retire, Target, arrange
from shared.spec.container import Strategy
from shared.spec.instance import Phase
from tests.property.world import (
    BENIGN,
    HARMFUL,
    Happening,
    World,
    assert_one_per_slot,
    doubled_slots,
    floor,
    happenings,
    prefixes,
    ready_slots,
    steady,
    surge,
)

REVISION = 7


@st.composite
def targets(draw: st.DrawFn) -> Target:
    most_surge = draw(st.integers(0, 2))
    unavailable = draw(st.integers(0 if most_surge else 1, 2))
    exclusive = draw(st.booleans())
    return Target(
        revision=REVISION,
        strategy=Strategy(max_surge=most_surge, max_unavailable=unavailable, monitor=draw(st.sampled_from([0, 5]))),
        exclusive=exclusive,
        homed=exclusive and draw(st.booleans()),
        host_ports=not exclusive and draw(st.booleans()),
    )


def world_of(target: Target, replicas: int) -> World:
    instances = steady(target.revision, replicas)
    homes = {each.slot: each.node_id or "" for each in instances} if target.homed else {}
    return World(ContainerView(replicas=replicas, target=target, instances=instances, homes=homes))


def check(world: World, target: Target, plan: Plan) -> None:
    before = world.view
    served, doubled = ready_slots(before), doubled_slots(before)
    for part in prefixes(plan.commands):
        after = replace(world)
        after.apply(part)
        left = ready_slots(after.view)
        assert len(left) >= min(len(served), floor(target, before.replicas)), plan
        assert len(doubled_slots(after.view)) <= max(len(doubled), surge(target)), plan


def act(world: World, target: Target, cut: int | None) -> None:
    plan = orchestrate(world.view, world.now)
    check(world, target, plan)
    if cut is None:
        world.apply(plan.commands, plan.waiting)
    else:
        world.apply(plan.commands[: cut % (len(plan.commands) + 1)])


@settings(max_examples=150, deadline=None)
@given(targets(), st.integers(0, 4), happenings(*BENIGN, *HARMFUL), st.randoms(use_true_random=False))
def test_what_serves_stays_and_quiet_times_end_as_declared(
    target: Target, replicas: int, story: list[Happening], chance: object
) -> None:
    world = world_of(target, replicas)
    for name, index in story:
        if name == "act":
            act(world, target, None if index % 3 else index)
        else:
            world.happen(name, index)
    world.calm()
    settle(world, target)
    assert_one_per_slot(world.view, target)
    assert orchestrate(world.view, world.now) == Plan()


def settle(world: World, target: Target) -> None:
    for _ in range(500):
        plan = orchestrate(world.view, world.now)
        check(world, target, plan)
        world.apply(plan.commands, plan.waiting)
        quiet = not plan.commands and all(each.ready or each.phase is Phase.REMOVED for each in world.instances)
        if quiet and len(ready_slots(world.view)) == world.view.replicas:
            return
        world.proceed()
        if plan.wake_at is not None and not plan.commands:
            world.now = max(world.now, plan.wake_at)
    raise AssertionError("does not settle")


@settings(max_examples=150, deadline=None)
@given(targets(), st.integers(0, 4), happenings(*BENIGN, *HARMFUL), st.randoms(use_true_random=False))
def test_order_and_repetition_of_facts_do_not_matter(
    target: Target, replicas: int, story: list[Happening], chance: object
) -> None:
    world = world_of(target, replicas)
    for name, index in story:
        if name == "act":
            act(world, target, None)
        else:
            world.happen(name, index)
    plan = orchestrate(world.view, world.now)
    shuffled = list(world.instances)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    again = orchestrate(replace(world.view, instances=tuple(shuffled)), world.now)
    assert set(again.commands) == set(plan.commands)
    assert (again.wake_at, again.waiting) == (plan.wake_at, plan.waiting)


@settings(max_examples=150, deadline=None)
@given(targets(), st.integers(0, 4), happenings(*BENIGN, *HARMFUL))
def test_a_plan_never_retires_what_is_gone_nor_fills_what_is_full(
    target: Target, replicas: int, story: list[Happening]
) -> None:
    world = world_of(target, replicas)
    for name, index in story:
        if name != "act":
            world.happen(name, index)
        plan = orchestrate(world.view, world.now)
        by_id = {each.id: each for each in world.instances}
        retired = [each.instance_id for each in plan.commands if isinstance(each, Retire)]
        assert len(retired) == len(set(retired))
        assert all(by_id[each].phase is not Phase.REMOVED for each in retired)
        created = [each.slot for each in plan.commands if isinstance(each, CreateInstance)]
        assert len(created) == len(set(created))
        for slot in arrange(world.view, target):
            kept = [each for each in slot.incoming if each.id not in retired]
            assert not (kept and slot.index in created)
            assert not (target.exclusive and slot.held and slot.index in created)
        world.apply(plan.commands, plan.waiting)


@settings(max_examples=150, deadline=None)
@given(targets(), st.integers(0, 4), happenings(*BENIGN, *HARMFUL))
def test_stopping_keeps_what_ran_and_removing_leaves_nothing(
    target: Target, replicas: int, story: list[Happening]
) -> None:
    world = world_of(target, replicas)
    for name, index in story:
        if name == "act":
            act(world, target, None)
        else:
            world.happen(name, index)
    world.calm()
    world.view = replace(world.view, desired="stopped")
    for _ in range(5):
        world.apply(orchestrate(world.view, world.now).commands)
        world.proceed()
    assert all(each.ended for each in world.instances)
    assert orchestrate(world.view, world.now).commands == ()
    world.view = replace(world.view, desired="running")
    settle(world, target)
    world.view = replace(world.view, desired="removed")
    for _ in range(5):
        world.apply(orchestrate(world.view, world.now).commands)
        world.proceed()
    assert all(each.phase is Phase.REMOVED for each in world.instances)


@given(st.integers(1, 40))
def test_backoff_doubles_up_to_five_minutes(failures: int) -> None:
    assert 1.0 <= backoff(failures) <= 300.0
    assert backoff(failures) == min(2.0 ** (failures - 1), 300.0)


def test_converge_without_a_rollout_leaves_other_revisions_alone() -> None:
    target = Target(revision=REVISION)
    world = world_of(replace(target, revision=3), 3)
    assert converge(world.view, target, world.now, replaces=False).commands == ()
