"""The scheduler on a real store: what it binds, what it explains, and what it leaves to the next run."""

import asyncio
from collections.abc import Callable

import pytest

from coordinator.control.scheduler import Scheduler
from coordinator.store import nodes, volumes
from coordinator.store.database import Store
from coordinator.store.writer import Tx
from shared.kit.clock import SystemClock
from shared.spec.container import Placement, Port, Resources, Template, Volume
from shared.spec.instance import Phase
from shared.spec.node import Engine, NodeFacts
from shared.spec.reason import DISK_FULL, PORT_TAKEN, UNPLACED, Reason
from tests.fakes.seeds import GIB, Seeds, running, until


class Present:
    """Everybody is connected but those in `away`."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.asked = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []

    def is_connected(self, node_id: str) -> bool:
        self.asked.set()
        return node_id not in self.away

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(changed)

    def tell(self) -> None:
        for changed in self._watchers:
            changed()


@pytest.fixture
async def seeds(store: Store) -> Seeds:
    return await Seeds(store).plant()


@pytest.fixture
def present() -> Present:
    return Present()


def scheduler(seeds: Seeds, present: Present) -> Scheduler:
    return Scheduler(seeds.store, present, SystemClock())


async def placed(seeds: Seeds, *instance_ids: str) -> list[str]:
    async def all_placed() -> list[str | None] | None:
        found = await seeds.where(*instance_ids)
        return found if all(found) else None

    found: list[str] = await until(all_placed, "every instance is placed")
    return found


async def explained(seeds: Seeds, instance_id: str, sentence: str) -> None:
    async def says() -> bool:
        reason = (await seeds.instance(instance_id)).reason
        return reason is not None and reason.code == UNPLACED and sentence in reason.message

    await until(says, f"{sentence!r} is said")


async def test_it_spreads_and_counts_every_nodes_set_up(seeds: Seeds, present: Present) -> None:
    hosts = [await seeds.node(name) for name in ("a", "b", "c")]
    web = await seeds.container("web", replicas=6)
    before = [await seeds.sequence(host) for host in hosts]
    feed = seeds.store.changes.subscribe("assignment")
    async with running(scheduler(seeds, present).run()):
        made = await seeds.pending(web, *range(6))
        found = await placed(seeds, *made)
    assert sorted(found) == sorted(hosts * 2)
    assert {(await seeds.instance(each)).phase for each in made} == {Phase.ASSIGNED}
    after = [await seeds.sequence(host) for host in hosts]
    assert all(now > was for was, now in zip(before, after, strict=True))
    assert await feed.take() == {("assignment", host) for host in hosts}
    feed.close()


async def test_what_was_pending_before_it_started_is_placed(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    made = await seeds.pending(await seeds.container("web"), 0)
    async with running(scheduler(seeds, present).run()):
        assert await placed(seeds, *made) == ["node_a"]


async def test_a_cluster_without_nodes_says_so_and_the_first_node_gets_it(seeds: Seeds, present: Present) -> None:
    made = await seeds.pending(await seeds.container("web"), 0)
    async with running(scheduler(seeds, present).run()):
        await explained(seeds, made[0], "cluster.joinToken")
        await seeds.node("a")
        assert await placed(seeds, *made) == ["node_a"]
    assert (await seeds.instance(made[0])).reason is None


async def test_the_reason_counts_the_nodes_and_is_written_once(seeds: Seeds, present: Present) -> None:
    small = NodeFacts(cpu_millis=4000, memory_bytes=GIB)
    for name in "abc":
        await seeds.node(name, facts=small)
    await seeds.node("d", availability="cordoned")
    await seeds.node(
        "e", facts=NodeFacts(cpu_millis=4000, memory_bytes=8 * GIB, engine=Engine(reason=Reason("x", "y")))
    )
    big = Template(image="big:1", resources=Resources(memory_limit="2Gi"))
    made = await seeds.pending(await seeds.container("big", big), 0)
    async with running(scheduler(seeds, present).run()):
        sentence = "3 of 5 nodes lack 2 GiB, 1 has an engine that does not answer, 1 is cordoned"
        await explained(seeds, made[0], sentence)
        feed = seeds.store.changes.subscribe("instance")
        other = await seeds.pending(await seeds.container("web"), 0)
        await placed(seeds, *other)
        written = {key for _, key in await feed.take()}
        assert (await seeds.instance(made[0])).container_id not in written
        feed.close()


async def test_room_is_what_is_left_beside_what_is_bound(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    big = Template(image="big:1", resources=Resources(memory_limit="5Gi"), ports=[Port(port=80, host_port=80)])
    first = await seeds.container("first", big)
    here = await seeds.bound(first, "node_a", 0)
    made = await seeds.pending(await seeds.container("second", big), 0)
    async with running(scheduler(seeds, present).run()):
        await explained(seeds, made[0], "1 of 1 node has the host port 80/tcp taken")
        # A tombstone alone frees nothing: what it removes may still run.
        from_node = await seeds.instance(here[0])
        assert from_node.phase is Phase.RUNNING
        await seeds.report(here[0], Phase.FAILED)
        assert await placed(seeds, *made) == ["node_a"]


async def test_only_connected_nodes_take_instances_and_a_connection_wakes(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    present.away.add("node_a")
    made = await seeds.pending(await seeds.container("web"), 0)
    async with running(scheduler(seeds, present).run()):
        await explained(seeds, made[0], "1 of 1 node is not connected")
        present.away.clear()
        present.tell()
        assert await placed(seeds, *made) == ["node_a"]


async def test_uncordoning_and_labels_wake(seeds: Seeds, present: Present) -> None:
    await seeds.node("a", availability="cordoned", labels={"zone": "x"})
    template = Template(image="web:1", placement=Placement(constraints=["zone==y"]))
    made = await seeds.pending(await seeds.container("web", template), 0)
    async with running(scheduler(seeds, present).run()):
        await explained(seeds, made[0], "is cordoned")
        await seeds.store.write(lambda tx: nodes.set_availability(tx, "node_a", "active", expected=["cordoned"]))
        await explained(seeds, made[0], "does not match zone==y")
        await seeds.change_node("node_a", labels={"zone": "y"})
        assert await placed(seeds, *made) == ["node_a"]


async def test_a_node_that_refused_the_slot_is_avoided(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    await seeds.node("b")
    made = await seeds.pending(await seeds.container("web"), 0, avoid_nodes=["node_a"], prefer_node="node_a")
    async with running(scheduler(seeds, present).run()):
        assert await placed(seeds, *made) == ["node_b"]


async def test_a_slot_goes_back_to_its_node_when_that_is_as_good(seeds: Seeds, present: Present) -> None:
    for name in "abc":
        await seeds.node(name)
    made = await seeds.pending(await seeds.container("web"), 0, prefer_node="node_c")
    async with running(scheduler(seeds, present).run()):
        assert await placed(seeds, *made) == ["node_c"]


async def homes(seeds: Seeds, container_id: str) -> dict[tuple[int, str], str]:
    async with seeds.store.read() as conn:
        found = await volumes.of_container(conn, container_id)
    return {(each.slot, each.name): each.node_id for each in found}


DATABASE = Template(image="db:1", volumes=[Volume(name="data", mount_path="/data", size_gb=20)])


async def test_volumes_bind_their_slot_to_the_node_of_its_first_instance(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    await seeds.node("b")
    db = await seeds.container("db", DATABASE, replicas=2)
    async with running(scheduler(seeds, present).run()):
        made = await seeds.pending(db, 0, 1)
        await placed(seeds, *made)
        first = await homes(seeds, db)
        assert set(first.values()) == {"node_a", "node_b"}
        home = first[0, "data"]
        await seeds.report(made[0], Phase.FAILED)
        again = await seeds.pending(db, 0, prefer_node="node_a" if home == "node_b" else "node_b")
        assert await placed(seeds, *again) == [home]
        assert await homes(seeds, db) == first


async def test_a_slot_waits_for_the_node_its_volumes_are_on(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    db = await seeds.container("db", DATABASE)
    async with running(scheduler(seeds, present).run()):
        made = await seeds.pending(db, 0)
        await placed(seeds, *made)
        await seeds.report(made[0], Phase.FAILED)
        await seeds.node("b")
        await seeds.change_node("node_a", availability="cordoned")
        again = await seeds.pending(db, 0)
        await explained(seeds, again[0], "its volumes live on node a, which is cordoned")


async def test_new_volumes_need_free_disk_counted_until_they_are_there(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")  # 50 GiB free: two of 20
    db = await seeds.container("db", DATABASE, replicas=3)
    async with running(scheduler(seeds, present).run()):
        made = await seeds.pending(db, 0, 1)
        await placed(seeds, *made)
        third = await seeds.pending(db, 2)
        await explained(seeds, third[0], "1 of 1 node lacks 20 GiB of free disk")
        for each in made:  # from here on the node's own figure shows them
            await seeds.report(each, Phase.RUNNING, health="healthy")
        await seeds.change_node("node_a", labels={"changed": "yes"})
        assert await placed(seeds, *third) == ["node_a"]


async def test_a_claim_on_a_home_that_never_ran_is_given_up(seeds: Seeds, present: Present) -> None:
    """The first node rejects the instance before it ever ran: its volumes hold nothing, so the slot may go elsewhere."""
    await seeds.node("a")
    db = await seeds.container("db", DATABASE)
    async with running(scheduler(seeds, present).run()):
        made = await seeds.pending(db, 0)
        await placed(seeds, *made)
        await seeds.report(made[0], Phase.REJECTED, reason=Reason(DISK_FULL, "no space left"))
        await seeds.node("b")
        again = await seeds.pending(db, 0, avoid_nodes=["node_a"])
        assert await placed(seeds, *again) == ["node_b"]
    assert await homes(seeds, db) == {(0, "data"): "node_b"}
    rejected = await seeds.instance(made[0])
    assert (rejected.goal, rejected.remove_volumes) == ("remove", True)


async def test_a_claim_beside_older_volumes_is_not_given_up(seeds: Seeds, present: Present) -> None:
    """A release adds a volume and its instance is rejected: what the slot had before holds data and stays its home."""
    await seeds.node("a")
    db = await seeds.container("db", DATABASE)
    async with running(scheduler(seeds, present).run()):
        made = await seeds.pending(db, 0)
        await placed(seeds, *made)
        await seeds.report(made[0], Phase.RUNNING, health="healthy")
        await seeds.report(made[0], Phase.FAILED)
        both = Template(image="db:2", volumes=[*DATABASE.volumes, Volume(name="more", mount_path="/more")])
        await seeds.release(db, both)
        second = await seeds.pending(db, 0)
        await placed(seeds, *second)
        await seeds.report(second[0], Phase.REJECTED, reason=Reason(PORT_TAKEN, "taken"))
        await seeds.node("b")
        third = await seeds.pending(db, 0, avoid_nodes=["node_a"])
        await explained(seeds, third[0], "its volumes live on node a, which just refused it")
    assert (await seeds.instance(second[0])).goal == "run"
    assert await homes(seeds, db) == {(0, "data"): "node_a", (0, "more"): "node_a"}


async def test_what_is_retired_before_it_is_placed_stays_unplaced(seeds: Seeds, present: Present) -> None:
    made = await seeds.pending(await seeds.container("web"), 0)
    async with running(scheduler(seeds, present).run()):
        await explained(seeds, made[0], "no nodes yet")
        await seeds.retire(*made)
        await seeds.node("a")
        other = await seeds.pending(await seeds.container("api"), 0)
        await placed(seeds, *other)
    ended = await seeds.instance(made[0])
    assert (ended.phase, ended.node_id) == (Phase.REMOVED, None)


async def test_a_node_cordoned_since_the_snapshot_takes_nothing(seeds: Seeds, present: Present) -> None:
    await seeds.node("a")
    made = await seeds.pending(await seeds.container("web"), 0)

    async def cordon_slowly(tx: Tx) -> None:
        await nodes.set_availability(tx, "node_a", "cordoned", expected=["active"])
        await present.asked.wait()  # by now the scheduler has read the node as active

    cordoning = asyncio.create_task(seeds.store.write(cordon_slowly))
    async with running(scheduler(seeds, present).run()):
        await cordoning
        await explained(seeds, made[0], "1 of 1 node is cordoned")
    assert (await seeds.instance(made[0])).phase is Phase.PENDING


async def test_several_hundred_at_once_are_bound_in_parts(seeds: Seeds, present: Present) -> None:
    for number in range(10):
        await seeds.node(f"n{number}")
    made = [each for name in "abcdef" for each in await seeds.pending(await seeds.container(f"c-{name}"), *range(60))]
    async with running(scheduler(seeds, present).run()):
        found = await placed(seeds, *made)
    assert all(found.count(f"node_n{number}") == 36 for number in range(10))
