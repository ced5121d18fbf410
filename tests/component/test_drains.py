"""Drains on a real store: when a node counts as drained, what is said until then, and how one leaves its cluster."""

import pytest

from coordinator.control.drains import Drains
from coordinator.store import instances, nodes
from coordinator.store.database import Store
from shared.spec.container import Template, Volume
from shared.spec.instance import Phase
from shared.spec.reason import DRAIN_BLOCKED, DRAINING, UNPLACED, Reason
from tests.fakes.seeds import Seeds, running, until


@pytest.fixture
async def seeds(store: Store) -> Seeds:
    planted = await Seeds(store).plant()
    await planted.node("a")
    await planted.node("b")
    return planted


async def drain(seeds: Seeds, *, removing: bool = False) -> None:
    await seeds.change_node("node_a", availability="draining", removing=removing)


async def drained(seeds: Seeds) -> None:
    async def says() -> bool:
        return (await seeds.at("node_a")).availability == "drained"

    await until(says, "the node is drained")


async def explained(seeds: Seeds, code: str, sentence: str) -> None:
    async def says() -> bool:
        reason = (await seeds.at("node_a")).drain_reason
        return reason is not None and reason.code == code and sentence in reason.message

    await until(says, f"{sentence!r} is said")


async def test_an_empty_node_is_drained_at_once_and_its_cluster_hears_of_it(seeds: Seeds) -> None:
    async with running(Drains(seeds.store).run()):
        feed = seeds.store.changes.subscribe("cluster", "node")
        await drain(seeds)
        await drained(seeds)
        assert ("cluster", seeds.cluster_id) in await feed.take()
        feed.close()
    assert (await seeds.at("node_a")).revoked_at is None
    assert (await seeds.at("node_b")).availability == "active"


async def test_it_is_drained_when_the_last_instance_is_gone_and_not_before(seeds: Seeds) -> None:
    web = await seeds.container("web", replicas=2)
    here = await seeds.bound(web, "node_a", 0, 1)
    async with running(Drains(seeds.store).run()):
        await drain(seeds)
        await explained(seeds, DRAINING, "2 instances are being replaced elsewhere")
        await seeds.bound(web, "node_b", 0)
        await seeds.retire(here[0])
        await explained(seeds, DRAINING, "1 instance is being replaced elsewhere, 1 instance is stopping")
        await seeds.report(here[0], Phase.REMOVED)
        await explained(seeds, DRAINING, "1 instance is being replaced elsewhere")
        assert (await seeds.at("node_a")).availability == "draining"
        await seeds.retire(here[1])
        await seeds.report(here[1], Phase.REMOVED)
        await drained(seeds)
    assert (await seeds.at("node_a")).drain_reason is None


async def test_a_replacement_without_room_is_named_with_its_reason(seeds: Seeds) -> None:
    web = await seeds.container("web")
    await seeds.bound(web, "node_a", 0)
    async with running(Drains(seeds.store).run()):
        await drain(seeds)
        made = await seeds.pending(web, 0)
        reason = Reason(UNPLACED, "1 of 2 nodes is draining, 1 is cordoned")
        await seeds.store.write(lambda tx: instances.explain(tx, {made[0]: reason}))
        await explained(seeds, DRAIN_BLOCKED, f"no other node takes web/0: {reason.message}")


async def test_volumes_keep_their_slot_here_until_the_release_in_force_has_none(seeds: Seeds) -> None:
    template = Template(image="db:1", volumes=[Volume(name="data", mount_path="/data")])
    db = await seeds.container("db", template)
    await seeds.bound(db, "node_a", 0)
    await seeds.volume(db, 0, "data", "node_a")
    async with running(Drains(seeds.store).run()):
        await drain(seeds)
        await explained(seeds, DRAIN_BLOCKED, "the volumes of db/0 live here")
        await seeds.release(db, Template(image="db:2"))
        await explained(seeds, DRAINING, "1 instance is being replaced elsewhere")


async def test_on_a_lost_node_nothing_can_be_seen_to_end(seeds: Seeds) -> None:
    await seeds.bound(await seeds.container("web"), "node_a", 0)
    async with running(Drains(seeds.store).run()):
        await drain(seeds)
        await explained(seeds, DRAINING, "1 instance")
        await seeds.store.write(lambda tx: nodes.set_lost(tx, ["node_a"], lost=True))
        await explained(seeds, DRAIN_BLOCKED, "the node is lost")


async def test_what_merely_lies_there_does_not_keep_a_node_from_being_drained(seeds: Seeds) -> None:
    here = await seeds.bound(await seeds.container("web"), "node_a", 0)
    await seeds.report(here[0], Phase.STOPPED)
    async with running(Drains(seeds.store).run()):
        await drain(seeds)
        await drained(seeds)
    assert (await seeds.instance(here[0])).goal == "run"


async def test_a_node_that_leaves_is_cleaned_first_and_then_revoked(seeds: Seeds) -> None:
    here = await seeds.bound(await seeds.container("web"), "node_a", 0)
    await seeds.report(here[0], Phase.STOPPED)
    async with running(Drains(seeds.store).run()):
        await drain(seeds, removing=True)
        await explained(seeds, DRAINING, "1 instance is stopping")

        async def told() -> bool:
            return (await seeds.instance(here[0])).goal == "remove"

        await until(told, "the leftover is to go")
        assert (await seeds.at("node_a")).revoked_at is None
        await seeds.report(here[0], Phase.REMOVED)

        async def left() -> bool:
            return (await seeds.at("node_a")).revoked_at is not None

        await until(left, "the node has left")
    assert (await seeds.at("node_a")).availability == "drained"


async def test_a_drain_that_was_taken_back_is_not_finished(seeds: Seeds) -> None:
    here = await seeds.bound(await seeds.container("web"), "node_a", 0)
    async with running(Drains(seeds.store).run()):
        await drain(seeds)
        await explained(seeds, DRAINING, "1 instance")
        expected = ["draining", "drained", "cordoned"]
        await seeds.store.write(lambda tx: nodes.set_availability(tx, "node_a", "active", expected=expected))
        await seeds.retire(*here)
        await seeds.report(here[0], Phase.REMOVED)
        await seeds.change_node("node_b", availability="draining")

        async def other() -> bool:
            return (await seeds.at("node_b")).availability == "drained"

        await until(other, "the other node is drained")
    node = await seeds.at("node_a")
    assert (node.availability, node.drain_reason) == ("active", None)


async def test_a_drain_under_way_when_the_coordinator_starts_goes_on(seeds: Seeds) -> None:
    await drain(seeds)
    async with running(Drains(seeds.store).run()):
        await drained(seeds)
