"""A rollout over a world that crashes, vanishes, scales and repeats itself: what serves stays, and it always comes to an end."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.orchestrate import orchestrate
from coordinator.core.rollout import FINISHED, Rollout, RolloutView, Step, cancel, dump, load, step
from coordinator.core.slots import ContainerView, Target
from shared.spec.container import Strategy
from shared.spec.instance import Phase
from tests.property.world import (
    BENIGN,
    HARMFUL,
    Happening,
    World,
    assert_one_per_slot,
    counted,
    doubled_slots,
    floor,
    happenings,
    prefixes,
    ready_slots,
    steady,
    surge,
)

OLD, NEW = 4, 5


@st.composite
def releases(draw: st.DrawFn, revision: int = NEW) -> Target:
    most_surge = draw(st.integers(0, 2))
    exclusive = draw(st.booleans())
    strategy = Strategy(
        type=draw(st.sampled_from(["rolling", "rolling", "recreate"])),
        max_surge=most_surge,
        max_unavailable=draw(st.integers(0 if most_surge else 1, 2)),
        auto_rollback=draw(st.sampled_from([True, True, True, False])),
        monitor=draw(st.sampled_from([0, 5])),
        progress_deadline=120,
    )
    return Target(
        revision, strategy, exclusive=exclusive, homed=exclusive and draw(st.booleans()), host_ports=draw(st.booleans())
    )


class Play:
    """One deployment in one world, checked at every step."""

    def __init__(self, release: Target, previous: Target | None, replicas: int, *, bad: bool) -> None:
        instances = steady(previous.revision, replicas) if previous is not None else ()
        homes = {each.slot: each.node_id or "" for each in instances} if release.homed else {}
        view = ContainerView(replicas=replicas, target=release, instances=instances, homes=homes)
        self.world = World(view, bad={release.revision} if bad else set())
        self.release = release
        self.previous = previous
        self.rollout = Rollout()
        self.in_force = [release.revision]
        self.fewest = replicas if previous is not None else 0

    def look(self, now: float) -> Step:
        view = RolloutView(self.world.view, self.world.deployment_id, self.release, self.previous)
        return step(self.rollout, view, now)

    def act(self, cut: int | None = None) -> Step:
        before = self.world.view
        taken = self.look(self.world.now)
        self._check(before, taken)
        commands = taken.plan.commands
        if cut is not None:  # the process died before it had stored the rollout and all of its commands
            self.world.apply(commands[: cut % (len(commands) + 1)])
            return taken
        self.rollout = load(dump(taken.rollout))
        assert self.rollout == taken.rollout
        self.world.apply(commands, taken.plan.waiting)
        self.world.view = replace(self.world.view, target=taken.target)
        if taken.target.revision != self.in_force[-1]:
            self.in_force.append(taken.target.revision)
        self.fewest = min(self.fewest, len(ready_slots(self.world.view)))
        if taken.finished:
            self._check_finished()
        return taken

    def _check(self, before: ContainerView, taken: Step) -> None:
        served, doubled = ready_slots(before), doubled_slots(before)
        recreates = taken.target.strategy.type == "recreate"
        for part in prefixes(taken.plan.commands):
            after = replace(self.world)
            after.apply(part)
            if not recreates:
                assert len(ready_slots(after.view)) >= min(len(served), floor(taken.target, before.replicas)), taken
            assert len(doubled_slots(after.view)) <= max(len(doubled), surge(taken.target)), taken

    def _check_finished(self) -> None:
        """A finished rollout ignores everything: it has no more commands, whatever it looks at."""
        again = self.look(self.world.now + 1e6)
        assert again.rollout == self.rollout
        assert again.plan.commands == ()
        assert again.messages == ()
        assert again.target.revision == self.in_force[-1]

    def live(self, story: list[Happening]) -> None:
        for name, index in story:
            if name == "act":
                self.act(index)
            elif name == "cancel":
                self.rollout = cancel(self.rollout)
            else:
                self.world.happen(name, index)
            if index % 3:
                self.act()
            # Back at most once, and never forth again.
            assert self.in_force in ([self.release.revision], [self.release.revision, OLD])

    def calm_down(self) -> None:
        """Until the rollout has ended and, with the orchestrator after it, nothing is left to do."""
        self.world.calm()
        for _ in range(1000):
            if self.rollout.stage in FINISHED:
                plan = orchestrate(self.world.view, self.world.now)
                self.world.apply(plan.commands, plan.waiting)
            else:
                plan = self.act().plan
            if self.rollout.stage in FINISHED and not plan.commands and self._quiet():
                return
            self.world.proceed()
            if plan.wake_at is not None and not plan.commands:
                self.world.now = max(self.world.now, min(plan.wake_at, self.world.now + 30))
        raise AssertionError(f"does not end: {self.rollout} {self.world.view}")

    def _quiet(self) -> bool:
        alive = [each for each in self.world.instances if each.phase is not Phase.REMOVED]
        bad = self.world.bad
        return all(each.ready or each.revision in bad or each.ended for each in alive) and all(
            each.goal == "run" for each in alive
        )


@st.composite
def plays(draw: st.DrawFn, *, bad: bool | None = None) -> Play:
    release = draw(releases())
    previous = draw(st.sampled_from([None, OLD, OLD, OLD]))
    earlier = replace(release, revision=OLD) if previous is not None else None
    spoilt = draw(st.booleans()) if bad is None else bad
    return Play(release, earlier, draw(st.integers(0, 4)), bad=spoilt)


@settings(max_examples=150, deadline=None)
@given(plays(), happenings(*BENIGN, *HARMFUL, "cancel"))
def test_it_ends_and_what_it_promises_holds_all_the_way(play: Play, story: list[Happening]) -> None:
    play.live(story)
    play.calm_down()
    stage = play.rollout.stage
    if stage == "complete":
        assert play.in_force == [NEW]
        if NEW not in play.world.bad:
            assert_one_per_slot(play.world.view, play.release)
    elif stage == "rolled_back" or (stage == "cancelled" and play.previous is not None):
        assert play.in_force == [NEW, OLD]
        assert play.previous is not None
        assert_one_per_slot(play.world.view, play.previous)
    else:
        assert stage in ("failed", "cancelled")
        assert play.rollout.error


@settings(max_examples=150, deadline=None)
@given(plays(bad=False), happenings(*BENIGN))
def test_a_good_release_in_a_quiet_world_succeeds(play: Play, story: list[Happening]) -> None:
    replicas = play.world.view.replicas
    play.live(story)
    play.calm_down()
    assert play.rollout.stage == "complete"
    assert play.in_force == [NEW]
    assert_one_per_slot(play.world.view, play.release)
    assert_kept_serving(play, replicas)


@settings(max_examples=150, deadline=None)
@given(plays(bad=True), happenings(*BENIGN))
def test_a_bad_release_never_takes_over(play: Play, story: list[Happening]) -> None:
    replicas = play.world.view.replicas
    play.live(story)
    play.calm_down()
    if replicas == 0:
        assert play.rollout.stage == "complete"
    elif play.previous is not None and play.release.strategy.auto_rollback:
        assert play.rollout.stage == "rolled_back"
        assert "unhealthy" in play.rollout.error
        assert_one_per_slot(play.world.view, play.previous)
    else:
        assert play.rollout.stage == "failed"
        assert play.in_force == [NEW]
    assert_kept_serving(play, replicas)


def assert_kept_serving(play: Play, replicas: int) -> None:
    if play.previous is not None and play.release.strategy.type == "rolling":
        assert play.fewest >= floor(play.release, replicas)


@settings(max_examples=150, deadline=None)
@given(plays(), happenings(*BENIGN, "crash", "reject"))
def test_total_never_exceeds_declared_plus_surge(play: Play, story: list[Happening]) -> None:
    """Without nodes that come back and without scaling, whatever runs was asked for by a command."""
    most = play.world.view.replicas + surge(play.release)
    for name, index in story:
        play.live([(name, index)])
        assert len(counted(play.world.view)) <= most


@settings(max_examples=150, deadline=None)
@given(plays(), happenings(*BENIGN, *HARMFUL))
def test_looking_again_at_the_same_facts_changes_nothing(play: Play, story: list[Happening]) -> None:
    play.live(story)
    now = play.world.now
    first = play.look(now)
    play.rollout = first.rollout
    second = play.look(now)
    assert second.rollout == first.rollout
    assert second.messages == ()
    if not first.finished:
        assert second.plan == first.plan
