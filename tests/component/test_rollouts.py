"""The orchestrator and the rollouts on a real store, against nodes that do as they are told, or do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from coordinator.control import execution, snapshots
from coordinator.control.execution import OutOfDate
from coordinator.control.orchestrator import Orchestrator
from coordinator.control.rollouts import Rollouts
from coordinator.control.snapshots import Snapshot
from coordinator.core import rollout
from coordinator.core.explain import container_status
from coordinator.core.orchestrate import orchestrate
from coordinator.store import containers, deployments, instances, nodes, releases
from coordinator.store.database import Store
from coordinator.store.deployments import DeploymentRecord
from coordinator.store.instances import InstanceRecord
from coordinator.store.releases import ReleaseRecord
from coordinator.store.tables import instance
from coordinator.store.writer import Tx
from shared.kit.clock import SystemClock
from shared.kit.ids import new_id
from shared.spec.container import Port, Resources, Strategy, Template
from shared.spec.instance import Phase
from shared.spec.node import Engine, NodeFacts
from shared.spec.reason import ENGINE_UNREACHABLE, IMAGE_NOT_FOUND, PORT_TAKEN, WAITING_PREVIOUS, Reason
from shared.spec.release import spec_hash
from tests.fakes.fleet import HEALTHY, Fleet, Verdict
from tests.fakes.seeds import Seeds, running, until

QUICK = Strategy(monitor=0)


class Scene:
    """A cluster of three nodes, and what a user can do to its containers."""

    def __init__(self, seeds: Seeds, fleet: Fleet) -> None:
        self.seeds = seeds
        self.store = seeds.store
        self.fleet = fleet

    def loops(self) -> tuple[Any, ...]:
        clock = SystemClock()
        return Rollouts(self.store, clock).run(), Orchestrator(self.store, clock).run(), self.fleet.run()

    async def container(self, name: str = "web", *, replicas: int = 3, template: Template | None = None) -> str:
        return await self.seeds.container(name, template or Template(image="web:1", strategy=QUICK), replicas=replicas)

    async def deploy(self, container_id: str, release_id: str | None = None, **changes: Any) -> DeploymentRecord:
        """A new release with these changes, or an old one again, as `procedures.releasing` does it."""

        async def unit(tx: Tx) -> DeploymentRecord:
            record = await containers.get(tx.conn, container_id)
            assert record is not None
            release = await self._release(tx, record.id, record.template, changes) if changes else None
            record_id = new_id("dep")
            active = await deployments.active_of(tx.conn, container_id)
            if active is not None:
                superseded = f"superseded by {record_id}"
                await deployments.change(tx, active.id, status="cancelled", active=False, error=superseded)
            made = DeploymentRecord(
                id=record_id,
                container_id=container_id,
                kind="deploy",
                release_id=release.id if release else release_id or record.target_release_id or "",
                previous_release_id=record.healthy_release_id,
                status="in_progress",
                created_by="user_1",
                created_at=tx.now,
            )
            await deployments.insert(tx, made)
            await containers.change(tx, container_id, target_release_id=made.release_id, desired="running")
            return made

        return await self.store.write(unit)

    async def _release(self, tx: Tx, container_id: str, template: Template, changes: dict[str, Any]) -> ReleaseRecord:
        wanted = Template(**{**{name: getattr(template, name) for name in template.__struct_fields__}, **changes})
        revision = await containers.next_revision(tx, container_id)
        assert revision is not None
        made = ReleaseRecord(
            id=new_id("rel"),
            container_id=container_id,
            revision=revision,
            template=wanted,
            spec_hash=spec_hash(wanted),
            image=wanted.image,
            created_by="user_1",
            created_at=tx.now,
        )
        await releases.insert(tx, made)
        return made

    async def started(self, *, replicas: int = 3, template: Template | None = None) -> str:
        """A container whose first deployment has succeeded. To be called with the loops at work."""
        container_id = await self.container(replicas=replicas, template=template)
        await self.succeeded(await self.deploy(container_id))
        await self.status(container_id, "running")
        return container_id

    async def snapshot(self, container_id: str) -> Snapshot:
        async with self.store.read() as conn:
            return (await snapshots.load(conn, [container_id]))[container_id]

    async def deployment(self, deployment: DeploymentRecord) -> DeploymentRecord:
        async with self.store.read() as conn:
            found = await deployments.get(conn, deployment.id)
        assert found is not None
        return found

    async def ended(self, deployment: DeploymentRecord, status: str) -> DeploymentRecord:
        async def has_ended() -> DeploymentRecord | None:
            found = await self.deployment(deployment)
            return None if found.active else found

        found: DeploymentRecord = await until(has_ended, "the deployment's end")
        assert found.status == status, found
        assert found.finished_at is not None
        return found

    async def succeeded(self, deployment: DeploymentRecord) -> DeploymentRecord:
        return await self.ended(deployment, "succeeded")

    async def status(self, container_id: str, word: str) -> Reason | None:
        async def shows() -> list[Any]:
            status = container_status((await self.snapshot(container_id)).overview(), SystemClock().wall())
            return [status.reason] if status.word == word else []

        found: list[Reason | None] = await until(shows, f"the status {word!r}")
        return found[0]

    async def alive(self, container_id: str) -> list[InstanceRecord]:
        async with self.store.read() as conn:
            found = await instances.of_container(conn, container_id)
        return sorted(found, key=lambda each: (each.slot, each.id))

    async def settles(self, container_id: str, holds: Callable[[list[InstanceRecord]], bool]) -> list[InstanceRecord]:
        async def check() -> list[InstanceRecord]:
            found = await self.alive(container_id)
            return found if holds(found) else []

        found: list[InstanceRecord] = await until(check, "the instances wanted")
        return found


@pytest.fixture
async def scene(store: Store) -> Scene:
    seeds = await Seeds(store).plant()
    hosts = [await seeds.node(name) for name in ("a", "b", "c")]
    return Scene(seeds, Fleet(seeds, hosts))


def failing(revision: int) -> Callable[[InstanceRecord], Verdict]:
    sick: Verdict = (Phase.RUNNING, "unhealthy", Reason("unhealthy", "GET / answered 500"))
    return lambda record: sick if record.revision == revision else HEALTHY


def healthy_slots(found: list[InstanceRecord], revision: int) -> list[int]:
    return [each.slot for each in found if each.health == "healthy" and each.revision == revision]


async def test_a_created_container_is_filled_and_its_release_becomes_the_healthy_one(scene: Scene) -> None:
    template = Template(
        image="web:1",
        strategy=QUICK,
        resources=Resources(cpu_limit="500m", memory_limit="64Mi"),
        ports=[Port(port=80, host_port=8080)],
    )
    container_id = await scene.container(template=template)
    deployment = await scene.deploy(container_id)
    async with running(*scene.loops()):
        ended = await scene.succeeded(deployment)
        await scene.status(container_id, "running")
    made = await scene.alive(container_id)
    assert [each.slot for each in made] == [0, 1, 2]
    assert {each.deployment_id for each in made} == {deployment.id}
    assert made[0].cpu_millis == 500
    assert made[0].memory_bytes == 64 * 2**20
    assert made[0].host_ports == [(8080, "tcp")]
    assert ended.events[-1].message == "revision 1 is healthy"
    assert [event.seq for event in ended.events] == list(range(1, len(ended.events) + 1))
    assert (await scene.snapshot(container_id)).container.healthy_release_id == deployment.release_id


async def test_a_new_release_replaces_the_old_one_slot_by_slot(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        await scene.succeeded(await scene.deploy(container_id, image="web:2"))
        await scene.status(container_id, "running")
        found = await scene.settles(container_id, lambda found: len(found) == 3)
    assert healthy_slots(found, 2) == [0, 1, 2]


async def test_a_release_that_fails_is_taken_back_and_the_old_instances_are_the_same(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        before = await scene.alive(container_id)
        healthy = (await scene.snapshot(container_id)).container.healthy_release_id
        scene.fleet.verdict = failing(2)
        ended = await scene.ended(await scene.deploy(container_id, image="web:2"), "rolled_back")
        await scene.status(container_id, "running")
        after = await scene.settles(container_id, lambda found: len(found) == 3)
    assert [each.id for each in after] == [each.id for each in before]
    assert ended.error == "slot 0: the instance is unhealthy: GET / answered 500"
    record = (await scene.snapshot(container_id)).container
    assert record.target_release_id == record.healthy_release_id == healthy


async def test_a_first_release_that_fails_is_tried_again_with_a_reason(scene: Scene) -> None:
    missing: Verdict = (Phase.REJECTED, "unknown", Reason(IMAGE_NOT_FOUND, "no such image: web:1"))
    scene.fleet.verdict = lambda _: missing
    async with running(*scene.loops()):
        container_id = await scene.container(replicas=1)
        ended = await scene.ended(await scene.deploy(container_id), "failed")
        assert "no such image: web:1" in ended.error
        reason = await scene.status(container_id, "error")
        assert reason is not None
        assert "no such image: web:1" in reason.message
        found = await scene.settles(container_id, lambda found: any(each.failures == 1 for each in found))
        assert found[-1].revision == 1
        scene.fleet.verdict = lambda _: HEALTHY
        await scene.status(container_id, "running")
    assert (await scene.snapshot(container_id)).container.healthy_release_id is None


async def test_loops_that_start_anew_go_on_with_a_rollout_in_its_middle(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
    before = {each.id for each in await scene.alive(container_id)}
    scene.fleet.held = 1
    deployment = await scene.deploy(container_id, image="web:2")
    async with running(*scene.loops()):
        await scene.settles(container_id, lambda found: healthy_slots(found, 2) == [0])
    assert (await scene.deployment(deployment)).active
    assert len(before & {each.id for each in await scene.alive(container_id)}) >= 2
    scene.fleet.held = 100
    async with running(*scene.loops()):
        await scene.succeeded(deployment)
        await scene.status(container_id, "running")
    assert [each.slot for each in await scene.alive(container_id)] == [0, 1, 2]


async def test_cancelling_goes_back(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        scene.fleet.held = 1
        deployment = await scene.deploy(container_id, image="web:2")
        await scene.settles(container_id, lambda found: healthy_slots(found, 2) == [0])

        async def unit(tx: Tx) -> None:
            record = await deployments.get(tx.conn, deployment.id)
            assert record is not None
            await deployments.change(tx, record.id, state=rollout.dump(rollout.cancel(rollout.load(record.state))))

        await scene.store.write(unit)
        scene.fleet.held = 100
        await scene.ended(deployment, "cancelled")
        await scene.status(container_id, "running")
        found = await scene.settles(container_id, lambda found: len(found) == 3)
    assert healthy_slots(found, 1) == [0, 1, 2]


async def test_a_newer_deployment_takes_over(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        scene.fleet.held = 1
        first = await scene.deploy(container_id, image="web:2")
        await scene.settles(container_id, lambda found: healthy_slots(found, 2) == [0])
        scene.fleet.held = 100
        await scene.succeeded(await scene.deploy(container_id, image="web:3"))
        await scene.status(container_id, "running")
        found = await scene.settles(container_id, lambda found: len(found) == 3)
    assert healthy_slots(found, 3) == [0, 1, 2]
    assert (await scene.deployment(first)).status == "cancelled"


async def test_an_older_release_can_be_deployed_again(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        first = (await scene.snapshot(container_id)).container.target_release_id
        await scene.succeeded(await scene.deploy(container_id, image="web:2"))
        await scene.succeeded(await scene.deploy(container_id, release_id=first))
        await scene.status(container_id, "running")
        found = await scene.settles(container_id, lambda found: len(found) == 3)
    assert healthy_slots(found, 1) == [0, 1, 2]


async def test_scaling_up_and_down(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        await scene.seeds.change_container(container_id, replicas=5)
        found = await scene.settles(container_id, lambda found: healthy_slots(found, 1) == [0, 1, 2, 3, 4])
        await scene.seeds.change_container(container_id, replicas=1)
        left = await scene.settles(container_id, lambda found: len(found) == 1)
        await scene.seeds.change_container(container_id, replicas=0)
        await until(lambda: _nothing(scene, container_id), "nothing left")
    assert left[0].id == found[0].id


async def _nothing(scene: Scene, container_id: str) -> bool:
    return not await scene.alive(container_id)


async def test_stopping_keeps_instances_starting_makes_new_ones_removing_leaves_none(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        before = [each.id for each in await scene.alive(container_id)]
        await scene.seeds.change_container(container_id, desired="stopped")
        await scene.status(container_id, "stopped")
        stopped = await scene.alive(container_id)
        assert [(each.id, each.goal, each.phase) for each in stopped] == [
            (each, "stop", Phase.STOPPED) for each in before
        ]
        await scene.seeds.change_container(container_id, desired="running")
        await scene.status(container_id, "running")
        again = await scene.settles(container_id, lambda found: len(found) == 3)
        assert not {each.id for each in again} & set(before)
        await scene.seeds.change_container(container_id, desired="removed")
        await until(lambda: _nothing(scene, container_id), "nothing left")
    async with scene.store.read() as conn:
        gone = await instances.of_container(conn, container_id, removed=True)
    assert all(each.remove_volumes for each in gone if each.id not in before)


async def lose(scene: Scene, node_id: str, *, lost: bool) -> None:
    async def unit(tx: Tx) -> None:
        await nodes.set_lost(tx, [node_id], lost=lost)
        await instances.set_lost(tx, [node_id], lost=lost)

    if lost:
        scene.fleet.silent.add(node_id)
    await scene.store.write(unit)
    if not lost:
        scene.fleet.silent.discard(node_id)


async def test_a_lost_node_is_replaced_and_its_return_leaves_exactly_what_is_declared(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        gone = (await scene.alive(container_id))[0]
        assert gone.node_id is not None
        await lose(scene, gone.node_id, lost=True)
        found = await scene.settles(
            container_id, lambda found: len(found) == 4 and {0, 1, 2} == {e.slot for e in found if not e.lost}
        )
        await scene.status(container_id, "running")
        assert gone.id in {each.id for each in found}, "the lost one stays recorded"
        await lose(scene, gone.node_id, lost=False)
        left = await scene.settles(container_id, lambda found: len(found) == 3)
        await scene.status(container_id, "running")
    assert gone.id in {each.id for each in left}, "the older of two healthy copies stays"


async def test_where_the_engine_does_not_answer_nothing_is_claimed_and_nothing_replaced(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        before = [each.id for each in await scene.settles(container_id, lambda found: len(found) == 3)]
        silent = Engine(reason=Reason(ENGINE_UNREACHABLE, "the engine does not answer"))
        await scene.seeds.change_node(scene.fleet.node_ids[0], facts=NodeFacts(engine=silent))
        reason = await scene.status(container_id, "error")
        assert reason is not None
        assert (reason.code, reason.message.split(":")[0]) == (ENGINE_UNREACHABLE, "1 of 3 instances is not running")
        after = orchestrate((await scene.snapshot(container_id)).view(), SystemClock().wall())
        assert after.commands == ()
        assert [each.id for each in await scene.alive(container_id)] == before


async def test_a_draining_node_is_left_only_for_a_healthy_replacement(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        moved = (await scene.alive(container_id))[1]
        scene.fleet.held = 0
        assert moved.node_id is not None
        await scene.seeds.change_node(moved.node_id, availability="draining")
        found = await scene.settles(container_id, lambda found: len(found) == 4)
        assert moved.id in {each.id for each in found if each.goal == "run" and each.health == "healthy"}
        scene.fleet.held = 100
        left = await scene.settles(
            container_id, lambda found: len(found) == 3 and moved.id not in {e.id for e in found}
        )
    assert moved.node_id not in {each.node_id for each in left}


async def test_what_one_node_refuses_another_is_asked_for_after_a_wait_that_is_told(scene: Scene) -> None:
    taken: Verdict = (Phase.REJECTED, "unknown", Reason(PORT_TAKEN, "host port 80 is in use"))
    async with running(*scene.loops()):
        container_id = await scene.started(replicas=1)
        (first,) = await scene.alive(container_id)
        scene.fleet.verdict = lambda record: taken if record.node_id == first.node_id else HEALTHY
        await scene.seeds.retire(first.id)
        await scene.settles(container_id, lambda found: any(each.phase is Phase.REJECTED for each in found))

        async def waits() -> Reason | None:
            return (await scene.snapshot(container_id)).container.waiting.get("0")

        reason: Reason = await until(waits, "the reason of the wait")
        assert reason.code == WAITING_PREVIOUS
        assert reason.message == "host port 80 is in use"
        assert reason.next_at is not None
        await scene.status(container_id, "running")
        (left,) = await scene.settles(container_id, lambda found: len(found) == 1)
        assert left.node_id != first.node_id
        assert (await scene.snapshot(container_id)).container.waiting == {}


async def test_a_plan_made_on_an_old_snapshot_changes_nothing(scene: Scene) -> None:
    container_id = await scene.container()
    old = await scene.snapshot(container_id)
    plan = orchestrate(old.view(), SystemClock().wall())
    assert len(plan.commands) == 3
    await scene.seeds.change_container(container_id, replicas=1)

    async def unit(tx: Tx) -> None:
        await execution.require_current(tx, old)
        await execution.carry_out(tx, old, plan)

    with pytest.raises(OutOfDate):
        await scene.store.write(unit)
    assert await scene.alive(container_id) == []


async def test_a_container_that_cannot_be_decided_on_does_not_hold_up_the_others(scene: Scene) -> None:
    broken = await scene.container("broken")
    deployment = await scene.deploy(broken)
    await scene.store.write(lambda tx: deployments.change(tx, deployment.id, state='{"stage":"unheard of"}'))
    with capture_logs() as logs:
        async with running(*scene.loops()):
            container_id = await scene.started()
            await scene.status(container_id, "running")
    assert broken in {each.get("container") for each in logs if each["log_level"] == "error"}
    assert (await scene.deployment(deployment)).active
    assert await scene.alive(broken) == []


async def test_a_container_that_cannot_be_loaded_does_not_hold_up_the_others(scene: Scene) -> None:
    broken, other = await scene.container("broken"), await scene.container("other")
    (made,) = await scene.seeds.pending(broken, 0)

    async def spoil(tx: Tx) -> None:
        await tx.conn.execute(update(instance).where(instance.c.id == made).values(phase=100))

    await scene.store.write(spoil)
    with capture_logs() as logs:
        clock = SystemClock()
        async with running(Rollouts(scene.store, clock).run(), Orchestrator(scene.store, clock).run()):
            await scene.settles(other, lambda found: len(found) == 3)
    assert broken in {each.get("container") for each in logs if each["event"] == "a container cannot be loaded"}


async def test_loops_at_rest_write_nothing(scene: Scene) -> None:
    async with running(*scene.loops()):
        container_id = await scene.started()
        await scene.settles(container_id, lambda found: len(found) == 3)
        before = await scene.snapshot(container_id)
        await scene.seeds.change_node(scene.fleet.node_ids[0], labels={"disk": "ssd"})
        other = await scene.container("other", replicas=0)
        await scene.succeeded(await scene.deploy(other))
    after = await scene.snapshot(container_id)
    assert after.container.version == before.container.version
    assert replace(after, nodes={}) == replace(before, nodes={})
