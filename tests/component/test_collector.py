"""The collector on a real store: what is cleared away, how soon, and what is kept."""

import pytest

from coordinator.control.collector import KEPT_PER_SLOT, OLD_SECONDS, TRIM_SECONDS, YOUNG_SECONDS, Collector
from coordinator.store import containers, instances, nodes, releases, tokens, volumes
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Store
from coordinator.store.tokens import JoinTokenRecord
from shared.kit.clock import SystemClock
from shared.spec.container import Template, Volume
from shared.spec.instance import Phase
from shared.spec.reason import NODE_REMOVED
from tests.fakes.clock import FakeClock
from tests.fakes.seeds import Seeds, running, until


@pytest.fixture
async def seeds(store: Store) -> Seeds:
    planted = await Seeds(store).plant()
    await planted.node("a")
    return planted


async def found(seeds: Seeds, container_id: str) -> ContainerRecord | None:
    async with seeds.store.read() as conn:
        return await containers.get(conn, container_id)


async def gone(seeds: Seeds, container_id: str) -> None:
    async def is_gone() -> bool:
        return await found(seeds, container_id) is None

    await until(is_gone, "the container is gone")


DATABASE = Template(image="db:1", volumes=[Volume(name="data", mount_path="/data")])


async def test_a_removed_container_goes_with_everything_once_no_node_holds_any_of_it(seeds: Seeds) -> None:
    db = await seeds.container("db", DATABASE, replicas=2)
    here = await seeds.bound(db, "node_a", 0)
    await seeds.volume(db, 0, "data", "node_a")
    never_placed = await seeds.pending(db, 1)
    async with running(Collector(seeds.store, SystemClock()).run()):
        await seeds.change_container(db, desired="removed")
        await seeds.retire(*here, *never_placed)
        await seeds.change_node("node_a", labels={"look": "again"})
        assert await found(seeds, db) is not None
        await seeds.report(here[0], Phase.REMOVED)
        await gone(seeds, db)
        # Its name is free at once.
        await seeds.container("db", DATABASE)
    async with seeds.store.read() as conn:
        assert await instances.of_container(conn, db, removed=True) == []
        assert await volumes.of_container(conn, db) == []
        assert await releases.of_container(conn, db) == []


async def test_one_that_was_to_go_before_the_start_goes(seeds: Seeds) -> None:
    web = await seeds.container("web")
    await seeds.change_container(web, desired="removed")
    async with running(Collector(seeds.store, SystemClock()).run()):
        await gone(seeds, web)


async def test_a_container_that_runs_or_is_stopped_is_left_alone(seeds: Seeds) -> None:
    stopped, doomed = await seeds.container("stopped"), await seeds.container("doomed")
    async with running(Collector(seeds.store, SystemClock()).run()):
        await seeds.change_container(stopped, desired="stopped")
        await seeds.change_container(doomed, desired="removed")
        await gone(seeds, doomed)
    assert await found(seeds, stopped) is not None


async def test_the_instances_of_a_node_that_was_removed_by_force_end(seeds: Seeds) -> None:
    db = await seeds.container("db", DATABASE)
    here = await seeds.bound(db, "node_a", 0)
    await seeds.volume(db, 0, "data", "node_a")
    await seeds.node("b")
    there = await seeds.bound(await seeds.container("web"), "node_b", 0)
    async with running(Collector(seeds.store, SystemClock()).run()):
        await seeds.store.write(lambda tx: nodes.revoke(tx, "node_a"))

        async def ended() -> bool:
            return (await seeds.instance(here[0])).phase is Phase.REMOVED

        await until(ended, "the instance has ended")
    record = await seeds.instance(here[0])
    assert record.reason is not None
    assert (record.reason.code, record.health) == (NODE_REMOVED, "unknown")
    assert (await seeds.instance(there[0])).phase is Phase.RUNNING
    async with seeds.store.read() as conn:
        assert await volumes.of_container(conn, db) == []


async def test_a_removed_container_whose_node_is_removed_by_force_goes(seeds: Seeds) -> None:
    web = await seeds.container("web")
    here = await seeds.bound(web, "node_a", 0)
    async with running(Collector(seeds.store, SystemClock()).run()):
        await seeds.change_container(web, desired="removed")
        await seeds.retire(*here)
        await seeds.store.write(lambda tx: nodes.revoke(tx, "node_a"))
        await gone(seeds, web)


async def history(seeds: Seeds, container_id: str) -> list[str]:
    async with seeds.store.read() as conn:
        return [each.id for each in await instances.of_container(conn, container_id, removed=True)]


async def test_history_is_trimmed_to_the_last_few_of_each_slot(seeds: Seeds) -> None:
    web = await seeds.container("web", replicas=2)
    past: list[str] = []
    for _ in range(KEPT_PER_SLOT + 3):
        past += await seeds.pending(web, 0)
    other = await seeds.pending(web, 1)
    live = await seeds.bound(web, "node_a", 0)
    await seeds.retire(*past, *other)
    await seeds.backdate(YOUNG_SECONDS + 60, *past, *other, *live)
    async with running(Collector(seeds.store, SystemClock()).run()):

        async def trimmed() -> bool:
            return set(await history(seeds, web)) == {*past[3:], *other, *live}

        await until(trimmed, "the oldest three are gone")


async def test_what_is_young_is_kept_and_what_is_old_is_not_and_trimming_recurs(seeds: Seeds) -> None:
    clock = FakeClock(wall=SystemClock().wall())
    web = await seeds.container("web")
    young = await seeds.pending(web, *[0] * (KEPT_PER_SLOT + 1))
    await seeds.retire(*young)
    async with running(Collector(seeds.store, clock).run()):
        probe = await seeds.container("probe")
        await seeds.change_container(probe, desired="removed")
        await gone(seeds, probe)
        assert len(await history(seeds, web)) == len(young)
        await seeds.backdate(OLD_SECONDS + 60, *young)
        clock.advance(TRIM_SECONDS)

        async def all_gone() -> bool:
            await seeds.change_node("node_a", labels={"look": "again"})
            return await history(seeds, web) == []

        await until(all_gone, "what is old is gone")


async def test_join_tokens_nobody_will_ask_about_are_forgotten(seeds: Seeds) -> None:
    now = SystemClock().wall()

    def token(name: str, expires_at: float) -> JoinTokenRecord:
        return JoinTokenRecord(
            id=f"tok_{name}",
            organization_id=seeds.organization_id,
            role="worker",
            secret_hash="",
            uses_left=1,
            expires_at=expires_at,
            created_by="user_1",
            created_at=0.0,
        )

    old, expired = token("old", now - tokens.REMEMBERED_SECONDS - 1), token("expired", now - 1)
    await seeds.store.write(lambda tx: tokens.insert(tx, old))
    await seeds.store.write(lambda tx: tokens.insert(tx, expired))
    async with running(Collector(seeds.store, SystemClock()).run()):

        async def forgotten() -> bool:
            async with seeds.store.read() as conn:
                return await tokens.get(conn, "tok_old") is None

        await until(forgotten, "the old token is forgotten")
    async with seeds.store.read() as conn:
        assert await tokens.get(conn, "tok_expired") is not None
