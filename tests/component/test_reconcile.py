"""The reconciler on an engine in memory: from an order to a running instance and its report, through everything that goes wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from agent.core.faults import RuntimeFault, Unanswered
from agent.core.health import HealthState, begin, observe
from agent.core.observe import Observed
from agent.core.policy import RefusedByPolicy
from agent.journal.journal import Journal
from agent.reconcile.book import AssignmentBook
from agent.reconcile.executor import Means
from agent.reconcile.loop import Reconciler
from agent.reconcile.memory import Memory
from agent.reconcile.reports import ReportBox
from shared.kit.seal import SealError
from shared.spec.container import HealthCheck, RestartPolicy
from shared.spec.instance import Assignment, Goal, InstanceReport, InstanceSecrets, InstanceSpec, InstanceVolume, Phase
from shared.spec.reason import Reason
from shared.wire.frames import AssignmentDelta, AssignmentSet, Held
from tests.fakes.clock import FakeClock
from tests.fakes.runtime import FakeRuntime, Program

CHECK = HealthCheck(type="tcp", port=80, interval=1, retries=2, start_period=0)


@dataclass
class FakeProbes:
    """Probes whose results the test decides."""

    clock: FakeClock
    changed: Callable[[str], None]
    states: dict[str, HealthState] = field(default_factory=dict)
    watched: list[str] = field(default_factory=list)

    def watch(self, assignment: Assignment, observed: Observed) -> None:
        assert assignment.spec is not None
        self.watched.append(assignment.instance_id)
        self.states[assignment.instance_id] = begin(assignment.spec.health_check, self.clock.monotonic())

    def forget(self, instance_id: str) -> None:
        self.states.pop(instance_id, None)

    def health(self, instance_id: str) -> HealthState | None:
        return self.states.get(instance_id)

    def result(self, instance_id: str, passed: bool) -> None:
        self.clock.advance(1.0)
        state = self.states[instance_id]
        self.states[instance_id] = observe(state, CHECK, passed, self.clock.monotonic(), "connection refused")
        self.changed(instance_id)


class Node:
    """One agent's life on an engine that outlives it."""

    def __init__(self, engine: FakeRuntime, clock: FakeClock, journal: Journal, boot_id: str) -> None:
        self.engine = engine
        self.clock = clock
        state = journal.load()
        self.book = AssignmentBook(journal, state)
        self.reports = ReportBox()
        self.memory = Memory(journal, state, boot_id)
        self.probes = FakeProbes(clock, self.book.changes.add)
        self.free: int | None = None
        self.refusal: str | None = None
        self.engine_reasons: list[Reason | None] = []
        self.resolved: dict[str, str] = {}
        means = Means(engine, clock, self._admit, self._unseal, lambda: self.free)
        self.reconciler = Reconciler(
            means, self.probes, self.book, self.reports, self.memory, self.engine_reasons.append
        )

    @property
    def engine_reason(self) -> Reason | None:
        return self.engine_reasons[-1] if self.engine_reasons else None

    def _admit(self, spec: InstanceSpec) -> InstanceSpec:
        if self.refusal is not None:
            raise RefusedByPolicy(self.refusal)
        volumes = [replace(volume, source=self.resolved.get(volume.source, volume.source)) for volume in spec.volumes]
        return replace(spec, volumes=volumes)

    def _unseal(self, assignment: Assignment) -> InstanceSecrets:
        assert assignment.spec is not None
        if assignment.spec.sealed == b"foreign":
            raise SealError("wrong key or context, or altered")
        return InstanceSecrets(env={"PASSWORD": assignment.spec.sealed.decode()})

    async def order(self, *assignments: Assignment, forget: tuple[str, ...] = ()) -> None:
        base = self.book.sequence
        if base is None:
            await self.book.apply_set(AssignmentSet(1, 0, True, []))
            base = 1
        assert await self.book.apply_delta(AssignmentDelta(base, base + 1, list(assignments), list(forget)))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def reaches(self, name: str, phase: Phase, attempt: int = 1, health: str | None = None) -> InstanceReport:
        def there() -> bool:
            report = self.reports.latest(name)
            return (
                report is not None
                and (report.attempt, report.phase) == (attempt, phase)
                and health in (None, report.health)
            )

        await self.until(there)
        return self.report(name)

    def report(self, name: str) -> InstanceReport:
        report = self.reports.latest(name)
        assert report is not None
        return report

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.book.changes.add(*self.book.assignments)


class Site:
    """The machine: its engine and disk stay while agents come and go."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.engine = FakeRuntime(wall=self.clock.wall)
        self.engine.images["busybox"] = "sha256:busybox"
        self.path = path
        self.boot_id = "boot-1"

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Node]:
        journal = await asyncio.to_thread(Journal, self.path)
        node = Node(self.engine, self.clock, journal, self.boot_id)
        running = asyncio.create_task(node.reconciler.run())
        try:
            await node.until(lambda: node.engine_reasons or self.engine.down)
            yield node
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.to_thread(journal.close)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "journal.db")


def want(
    name: str = "ins_1",
    goal: Goal = "run",
    *,
    image: str = "busybox",
    policy: RestartPolicy = "always",
    check: HealthCheck | None = None,
    sealed: bytes = b"",
    command: tuple[str, ...] = (),
) -> Assignment:
    spec = InstanceSpec(
        image, list(command), sealed=sealed, health_check=check, restart_policy=policy, stop_grace_period=3
    )
    return Assignment(name, "con_1", "web", 0, 1, "hash", goal, spec)


def tombstone(name: str = "ins_1", *volumes: str) -> Assignment:
    return Assignment(name, "con_1", "web", 0, 1, "hash", "remove", None, list(volumes))


# --- the way there


async def test_an_order_becomes_a_running_instance_with_the_fewest_calls(site: Site) -> None:
    async with site.agent() as node:
        site.engine.calls.clear()
        await node.order(want())
        report = await node.reaches("ins_1", Phase.RUNNING)
        assert report.health == "healthy"
        assert report.reason is None
        assert report.image_digest == "sha256:busybox"
        calls = [method for method, _ in site.engine.calls]
        assert calls[:4] == ["image_id", "create", "start", "inspect"]
        assert calls[4:] in (
            [],
            ["inspect"],
        )  # the event of the start may come after our own look, and asks for one more


async def test_the_way_from_order_to_report_costs_little(site: Site) -> None:
    async with site.agent() as node:
        took = []
        for number in range(20):
            name = f"ins_{number}"
            await node.order(want(name))
            ordered = time.perf_counter()
            while (report := node.reports.latest(name)) is None or report.phase is not Phase.RUNNING:
                await asyncio.sleep(0)
            took.append(time.perf_counter() - ordered)
        assert min(took) < 0.003  # the cost of our own code: whatever else the machine does only adds to it


async def test_a_missing_image_is_pulled_once_for_all_who_need_it(site: Site) -> None:
    gate = site.engine.gates["pull"] = asyncio.Event()
    async with site.agent() as node:
        await node.order(*(want(f"ins_{number}", image="nginx") for number in range(5)))
        report = await node.reaches("ins_0", Phase.PULLING)
        assert report.reason is not None
        assert "nginx" in report.reason.message
        gate.set()
        for number in range(5):
            await node.reaches(f"ins_{number}", Phase.RUNNING)
        assert site.engine.count("pull") == 1


async def test_a_slow_pull_of_one_does_not_delay_another(site: Site) -> None:
    site.engine.gates["pull:slow"] = asyncio.Event()
    async with site.agent() as node:
        await node.order(want("ins_1", image="slow"))
        await node.reaches("ins_1", Phase.PULLING)
        await node.order(want("ins_2"))
        await node.reaches("ins_2", Phase.RUNNING)
        assert node.report("ins_1").phase is Phase.PULLING


async def test_a_tombstone_cancels_a_pull_that_nobody_else_needs(site: Site) -> None:
    site.engine.gates["pull"] = asyncio.Event()
    async with site.agent() as node:
        await node.order(want("ins_1", image="slow"), want("ins_2", image="slow"))
        await node.reaches("ins_2", Phase.PULLING)
        await node.order(tombstone("ins_1"))
        await node.reaches("ins_1", Phase.REMOVED)
        assert node.report("ins_2").phase is Phase.PULLING  # still needs it
        site.engine.gates["pull"].set()
        await node.reaches("ins_2", Phase.RUNNING)
        assert site.engine.count("pull") == 1


async def test_secrets_are_opened_on_the_node(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want(sealed=b"hunter2"), want("ins_2", sealed=b"foreign"))
        await node.reaches("ins_1", Phase.RUNNING)
        made = site.engine.of("ins_1")
        assert made is not None
        assert made.environment["PASSWORD"] == "hunter2"
        refused = await node.reaches("ins_2", Phase.REJECTED)
        assert refused.reason is not None
        assert refused.reason.code == "secrets_unreadable"


async def test_the_nodes_own_policy_has_the_last_word(site: Site) -> None:
    async with site.agent() as node:
        node.refusal = "this node's policy does not allow privileged containers"
        await node.order(want())
        report = await node.reaches("ins_1", Phase.REJECTED)
        assert report.reason == Reason("policy_refused", node.refusal)
        assert site.engine.count("create") == 0


async def test_what_the_policy_judged_is_what_is_mounted(site: Site) -> None:
    async with site.agent() as node:
        node.resolved = {"/srv/link": "/srv/target"}
        linked = InstanceSpec("busybox", volumes=[InstanceVolume("/srv/link", "/data", host=True)])
        await node.order(Assignment("ins_1", "con_1", "web", 0, 1, "hash", spec=linked))
        await node.reaches("ins_1", Phase.RUNNING)
        made = site.engine.of("ins_1")
        assert made is not None
        assert [volume.source for volume in made.spec.volumes] == ["/srv/target"]


async def test_nothing_is_pulled_onto_a_full_disk(site: Site) -> None:
    async with site.agent() as node:
        node.free = 100 * 2**20
        await node.order(want(image="nginx"))
        await node.until(lambda: node.reports.latest("ins_1") is not None)
        report = node.report("ins_1")
        assert report.reason is not None
        assert report.reason.code == "disk_full"
        assert report.reason.next_at is not None
        assert "100 MiB are free" in report.reason.message
        assert site.engine.count("pull") == 0
        node.free = 2**30
        node.pass_time(2)
        await node.reaches("ins_1", Phase.RUNNING)


async def test_an_image_that_does_not_exist_ends_in_rejected(site: Site) -> None:
    site.engine.missing_images.add("nope")
    async with site.agent() as node:
        await node.order(want(image="nope"))
        report = await node.reaches("ins_1", Phase.REJECTED)
        assert report.reason is not None
        assert report.reason.code == "image_not_found"
        await node.order(tombstone())
        await node.reaches("ins_1", Phase.REMOVED)


async def test_an_image_pruned_between_pull_and_create_is_fetched_again(site: Site) -> None:
    gate = site.engine.gates["create"] = asyncio.Event()
    async with site.agent() as node:
        await node.order(want())
        await node.until(lambda: site.engine.count("create") == 1)
        del site.engine.images["busybox"]
        gate.set()
        await node.until(lambda: node.memory.get("ins_1").faults == 1)
        node.pass_time(2)
        await node.reaches("ins_1", Phase.RUNNING)
        assert site.engine.count("pull") == 1


async def test_a_temporary_fault_is_tried_again_with_a_reason_and_a_time(site: Site) -> None:
    site.engine.fail("start", RuntimeFault("engine_error", "the engine is out of sorts", temporary=True))
    async with site.agent() as node:
        await node.order(want())
        await node.until(lambda: node.memory.get("ins_1").faults == 1 and "ins_1" not in node.reconciler._executor.busy)
        await node.until(
            lambda: (r := node.reports.latest("ins_1")) is not None and r.reason is not None and r.reason.next_at
        )
        report = node.report("ins_1")
        assert report.phase is Phase.STARTING
        assert report.reason is not None
        assert report.reason.message.startswith("the engine is out of sorts; next try ")
        node.pass_time(2)
        assert (await node.reaches("ins_1", Phase.RUNNING)).reason is None


async def test_a_defect_of_the_agent_itself_is_reported_and_survived(site: Site) -> None:
    site.engine.fail("create", KeyError("boom"), subject="ins_1")
    with capture_logs() as logs:
        async with site.agent() as node:
            await node.order(want("ins_1"), want("ins_2"))
            await node.reaches("ins_2", Phase.RUNNING)
            await node.until(lambda: node.memory.get("ins_1").faults == 1)
            node.pass_time(2)
            await node.reaches("ins_1", Phase.RUNNING)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["defect in the agent"]


# --- staying there


async def test_a_crash_is_restarted_in_the_same_engine_container_after_a_backoff(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
        made = site.engine.of("ins_1")
        assert made is not None
        site.engine.crash("ins_1", 137)
        report = await node.reaches("ins_1", Phase.STARTING, attempt=2)
        assert report.health == "unhealthy"
        assert report.exit_code == 137
        assert report.reason is not None
        assert report.reason.message.startswith("exited with code 137 (killed); next start ")
        assert made.starts == 1
        node.pass_time(2)
        report = await node.reaches("ins_1", Phase.RUNNING, attempt=2)
        assert (report.health, report.reason, report.restarts) == ("healthy", None, 1)
        assert site.engine.of("ins_1") is made
        assert made.starts == 2


async def test_each_crash_waits_longer_and_health_for_a_minute_forgives(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want())
        for attempt in range(1, 5):
            await node.reaches("ins_1", Phase.RUNNING, attempt=attempt)
            site.engine.crash("ins_1", 1)
            report = await node.reaches("ins_1", Phase.STARTING, attempt=attempt + 1)
            assert report.reason is not None
            assert report.reason.next_at is not None
            assert report.reason.next_at - node.clock.wall() <= 2 ** (attempt - 1)
            node.pass_time(60)
        assert report.reason is not None
        assert "4 times" in report.reason.message
        await node.reaches("ins_1", Phase.RUNNING, attempt=5)
        node.pass_time(61)
        site.engine.crash("ins_1", 1)
        report = await node.reaches("ins_1", Phase.STARTING, attempt=6)
        assert report.reason is not None
        assert "times" not in report.reason.message


@pytest.mark.parametrize(
    ("policy", "exit_code", "phase", "code"),
    [
        ("never", 0, Phase.STOPPED, "completed"),
        ("on-failure", 0, Phase.STOPPED, "completed"),
        ("never", 3, Phase.FAILED, "exited"),
    ],
)
async def test_the_restart_policy_decides_what_an_end_means(
    site: Site, policy: RestartPolicy, exit_code: int, phase: Phase, code: str
) -> None:
    site.engine.programs[("job",)] = Program(exit_code=exit_code)
    async with site.agent() as node:
        await node.order(want(policy=policy, command=("job",)))
        report = await node.reaches("ins_1", phase)
        assert report.exit_code == exit_code
        assert report.reason is not None
        assert report.reason.code == code


async def test_what_somebody_removed_is_made_again(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
        site.engine.vanish("ins_1")
        await node.reaches("ins_1", Phase.RUNNING, attempt=2)
        assert site.engine.count("create") == 2


async def test_health_decides_and_a_stuck_instance_is_restarted(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want(check=CHECK))
        report = await node.reaches("ins_1", Phase.RUNNING, health="starting")
        assert report.reason is not None
        assert report.reason.code == "starting"
        node.probes.result("ins_1", True)
        await node.reaches("ins_1", Phase.RUNNING, health="healthy")
        for _ in range(2):
            node.probes.result("ins_1", False)
        report = await node.reaches("ins_1", Phase.RUNNING, health="unhealthy")
        assert report.reason == Reason("unhealthy", "its health check fails: connection refused")
        for _ in range(2):
            node.probes.result("ins_1", False)
        report = await node.reaches("ins_1", Phase.STARTING, attempt=2)
        assert report.reason is not None
        assert report.reason.code == "unhealthy"
        node.pass_time(2)
        await node.reaches("ins_1", Phase.RUNNING, attempt=2, health="starting")
        assert node.probes.watched == ["ins_1", "ins_1"]


async def test_stop_keeps_the_engine_container_and_remove_takes_it_and_its_volumes(site: Site) -> None:
    site.engine.volumes.add("web-data-0")
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
        await node.order(want(goal="stop"))
        report = await node.reaches("ins_1", Phase.STOPPED)
        assert report.reason == Reason("stopped", "stopped as asked")
        assert report.exit_code == 143
        assert site.engine.of("ins_1") is not None
        await node.order(tombstone("ins_1", "web-data-0"))
        await node.reaches("ins_1", Phase.REMOVED)
        assert site.engine.of("ins_1") is None
        assert "web-data-0" not in site.engine.volumes
        await node.order(forget=("ins_1",))
        await node.until(lambda: not node.reports.held())
        await node.until(lambda: not node.memory.records)


async def test_a_crash_while_waiting_does_not_delay_a_tombstone(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
        site.engine.crash("ins_1")
        await node.reaches("ins_1", Phase.STARTING, attempt=2)
        await node.order(tombstone())
        await node.reaches("ins_1", Phase.REMOVED, attempt=2)


# --- absence, outages and restarts


async def test_what_no_assignment_names_is_held_and_left_alone(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want("ins_1"), want("ins_2"))
        await node.reaches("ins_1", Phase.RUNNING)
        await node.reaches("ins_2", Phase.RUNNING)
        assert node.book.sequence is not None
        await node.book.apply_set(AssignmentSet(node.book.sequence + 1, 0, True, [want("ins_1")]))
        await node.until(lambda: node.reports.latest("ins_2") is None)
        await node.until(lambda: Held("ins_2", 1, Phase.RUNNING) in node.reports.held())
        site.engine.crash("ins_2")
        site.engine.crash("ins_1")
        await node.reaches("ins_1", Phase.STARTING, attempt=2)
        assert site.engine.count("start", "ins_2") == 1
        assert site.engine.count("remove") == 0


async def test_an_agent_restart_touches_nothing(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want("ins_1"), want("ins_2", check=CHECK))
        await node.reaches("ins_1", Phase.RUNNING)
        await node.reaches("ins_2", Phase.RUNNING)
        node.probes.result("ins_2", True)
        await node.reaches("ins_2", Phase.RUNNING, health="healthy")
        site.engine.crash("ins_1")
        await node.reaches("ins_1", Phase.STARTING, attempt=2)
        node.pass_time(2)
        await node.reaches("ins_1", Phase.RUNNING, attempt=2)
    site.engine.calls.clear()
    async with site.agent() as node:
        report = await node.reaches("ins_1", Phase.RUNNING, attempt=2)
        assert report.health == "healthy"
        # Known healthy before, and nothing says otherwise: no flicker through `starting`.
        await node.reaches("ins_2", Phase.RUNNING, health="healthy")
        assert {method for method, _ in site.engine.calls} <= {"events", "observe"}


@pytest.mark.parametrize("boot_id", ["boot-1", "boot-2"])
async def test_what_ended_while_the_agent_was_away_is_started_without_blame(site: Site, boot_id: str) -> None:
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
    site.engine.crash("ins_1", 137)
    site.boot_id = boot_id
    async with site.agent() as node:
        report = await node.reaches("ins_1", Phase.RUNNING, attempt=2)
        assert report.reason is None
        assert node.memory.get("ins_1").crashes == 0


@pytest.mark.parametrize(("boot_id", "phase"), [("boot-1", Phase.STOPPED), ("boot-2", Phase.RUNNING)])
async def test_a_reboot_ends_services_that_exit_cleanly_and_they_are_started_again(
    site: Site, boot_id: str, phase: Phase
) -> None:
    """Code 0 under `on-failure` means done, unless the machine went down: then it says nothing."""
    async with site.agent() as node:
        await node.order(want(policy="on-failure"))
        await node.reaches("ins_1", Phase.RUNNING)
    site.engine.crash("ins_1", 0)
    site.boot_id = boot_id
    async with site.agent() as node:
        await node.reaches("ins_1", phase, attempt=1 if phase is Phase.STOPPED else 2)


async def test_an_engine_that_does_not_answer_decides_nothing(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want())
        before = await node.reaches("ins_1", Phase.RUNNING)
        site.engine.go_down()
        await node.until(lambda: node.engine_reason is not None)
        await node.order(want("ins_2"))
        node.pass_time(120)
        await node.until(lambda: site.engine.count("events") >= 3)
        assert node.report("ins_1") == before
        assert node.reports.latest("ins_2") is None
        assert site.engine.count("create", "ins_2") == 0
        site.engine.come_up()
        await node.reaches("ins_2", Phase.RUNNING)
        assert node.report("ins_1") == before
        assert node.engine_reasons[-1] is None


async def test_an_engine_restart_brings_everything_back_without_blame_and_without_duplicates(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want("ins_1"), want("ins_2", policy="on-failure"))
        await node.reaches("ins_1", Phase.RUNNING)
        await node.reaches("ins_2", Phase.RUNNING)
        site.engine.go_down()
        await node.until(lambda: node.engine_reason is not None)
        site.engine.crash("ins_1", 137)
        site.engine.crash("ins_2", 0)
        site.engine.come_up()
        await node.reaches("ins_1", Phase.RUNNING, attempt=2)
        await node.reaches("ins_2", Phase.RUNNING, attempt=2)
        assert len(site.engine.containers) == 2


async def test_the_engine_dying_under_an_action_delays_it_and_no_more(site: Site) -> None:
    gate = site.engine.gates["create"] = asyncio.Event()
    async with site.agent() as node:
        await node.order(want())
        await node.until(lambda: site.engine.count("create") == 1)
        site.engine.go_down()
        gate.set()
        await node.until(lambda: node.engine_reason is not None and node.memory.get("ins_1").faults)
        site.engine.come_up()
        await node.until(lambda: node.engine_reason is None)
        node.pass_time(60)
        await node.reaches("ins_1", Phase.RUNNING)


async def test_a_start_whose_inspection_failed_is_started_again_not_counted_twice(site: Site) -> None:
    site.engine.fail("inspect", RuntimeFault("engine_error", "hiccup", temporary=True))
    async with site.agent() as node:
        await node.order(want())
        await node.until(lambda: node.memory.get("ins_1").faults or node.memory.get("ins_1").running)
        node.pass_time(2)
        report = await node.reaches("ins_1", Phase.RUNNING)
        assert report.restarts == 0
        made = site.engine.of("ins_1")
        assert made is not None
        assert made.starts == 1


async def test_one_action_without_an_answer_does_not_condemn_the_engine(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want("ins_2"))
        await node.reaches("ins_2", Phase.RUNNING)
        listed = site.engine.count("observe")
        site.engine.fail("start", Unanswered(30), subject="ins_1")
        await node.order(want("ins_2"), want())
        await node.until(lambda: node.memory.get("ins_1").faults)
        await node.until(lambda: site.engine.count("observe") > listed)
        node.pass_time(2)
        report = await node.reaches("ins_1", Phase.RUNNING)
        assert report.restarts == 0
        assert [reason for reason in node.engine_reasons if reason is not None] == []
        assert node.memory.get("ins_2").unwatched == ""


async def test_what_is_merely_listed_is_neither_restarted_nor_crashed(site: Site) -> None:
    """Its inspection hangs in the engine: the list says that it runs, or does not, and nothing else."""
    async with site.agent() as node:
        await node.order(want())
        before = await node.reaches("ins_1", Phase.RUNNING)
        site.engine.bare.add("ins_1")
        for number, happens in enumerate((site.engine.stir, site.engine.crash), 2):
            listed = site.engine.count("observe")
            happens("ins_1")
            while site.engine.count("observe") == listed:
                await asyncio.sleep(0.001)
            node.pass_time(60)
            await node.order(want(f"ins_{number}"))
            await node.reaches(f"ins_{number}", Phase.RUNNING)  # the loop has been round
            assert node.report("ins_1") == before
            assert node.memory.get("ins_1").attempt == 1
        site.engine.bare.clear()
        site.engine.stir("ins_1")
        await node.until(lambda: node.memory.get("ins_1").crashes == 1)
        node.pass_time(60)
        await node.reaches("ins_1", Phase.RUNNING, attempt=2)


async def test_an_unreadable_journal_removes_nothing_and_is_kept(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
    await asyncio.to_thread(site.path.write_bytes, b"not a database, for sure" * 500)
    site.engine.calls.clear()
    async with site.agent() as node:
        assert node.book.sequence is None
        await node.until(lambda: node.reports.held() == [Held("ins_1", 1, Phase.RUNNING)])
        assert {method for method, _ in site.engine.calls} <= {"events", "observe"}
        await node.book.apply_set(AssignmentSet(9, 0, True, [want()]))
        await node.reaches("ins_1", Phase.RUNNING)
        assert site.engine.count("start") == 0
    kept = await asyncio.to_thread((site.path.parent / "journal.db.unreadable-1").read_bytes)
    assert kept.startswith(b"not a database")


async def test_a_hundred_instances_at_once_all_get_there(site: Site) -> None:
    async with site.agent() as node:
        await node.order(*(want(f"ins_{number:03}") for number in range(100)))
        await node.until(
            lambda: (
                len(node.reconciler.running()) == 100
                and all(r.phase is Phase.RUNNING for r in map(node.report, node.book.assignments))
            )
        )
        await node.order(*(tombstone(f"ins_{number:03}") for number in range(100)))
        await node.until(lambda: not site.engine.containers)


async def test_a_spec_never_changes_under_a_running_instance(site: Site) -> None:
    """One-shot identity: whatever a delta says of the same instance, what runs is left alone."""
    async with site.agent() as node:
        await node.order(want())
        await node.reaches("ins_1", Phase.RUNNING)
        site.engine.calls.clear()
        await node.order(msgspec.structs.replace(want(image="other"), spec_hash="other"))
        await node.order(want("ins_2"))
        await node.reaches("ins_2", Phase.RUNNING)
        assert site.engine.count("stop") == site.engine.count("remove") == 0


async def test_other_credentials_are_for_the_next_pull_and_touch_nothing_that_runs(site: Site) -> None:
    async with site.agent() as node:
        await node.order(want(sealed=b"old"))
        before = await node.reaches("ins_1", Phase.RUNNING)
        site.engine.calls.clear()
        await node.order(want(sealed=b"new"))
        await node.order(want("ins_2"))  # after it, so that the first was looked at
        await node.reaches("ins_2", Phase.RUNNING)
        assert not any(name == "ins_1" for _, name in site.engine.calls)
        assert node.report("ins_1") == before
    async with site.agent() as node:  # out of the journal
        site.engine.vanish("ins_1")
        site.engine.images.clear()
        await node.reaches("ins_1", Phase.RUNNING, attempt=2)
        made = site.engine.of("ins_1")
        assert made is not None
        assert made.environment["PASSWORD"] == "new"


async def test_a_pull_that_is_tried_again_uses_the_credentials_of_the_moment(site: Site) -> None:
    site.engine.fail("pull", RuntimeFault("image_pull_failed", "the registry is away", temporary=True))
    async with site.agent() as node:
        await node.order(want(image="private", sealed=b"old"))
        await node.until(lambda: node.memory.get("ins_1").faults == 1 and "ins_1" not in node.reconciler._executor.busy)
        await node.order(want(image="private", sealed=b"new"))
        node.pass_time(2)
        await node.reaches("ins_1", Phase.RUNNING)
        made = site.engine.of("ins_1")
        assert made is not None
        assert made.environment["PASSWORD"] == "new"
