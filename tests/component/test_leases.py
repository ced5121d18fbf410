"""Leases: the book that the hub feeds, and the loop that turns its judgement into rows."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coordinator.control.leases import FLUSH_SECONDS, LeaseBook, Leases
from coordinator.core.lease import CONFIRMING_GRACES, START_GRACES, Event, Standing
from coordinator.store import nodes
from coordinator.store.database import Store
from coordinator.store.errors import StoreError
from coordinator.store.nodes import Enlisted
from coordinator.store.writer import Tx
from shared.spec.instance import Phase
from tests.fakes.clock import FakeClock
from tests.fakes.seeds import Seeds, running, until

GRACE = 6.0


def enlisted(*names: str) -> list[Enlisted]:
    return [Enlisted(id=name, cluster_id="cluster_1") for name in names]


def test_an_older_sessions_end_does_not_disconnect_the_newer_one() -> None:
    book = LeaseBook()
    book.connected("a", 1, 0.0)
    book.connected("a", 2, 1.0)
    book.disconnected("a", 1, 2.0)
    assert book.is_connected("a")
    book.disconnected("a", 2, 3.0)
    assert not book.is_connected("a")


def test_a_dropped_connection_does_not_shorten_the_lease() -> None:
    book = LeaseBook()
    book.connected("a", 1, 10.0)
    book.disconnected("a", 1, 10.5)
    assert book.tick(10.0 + GRACE - 0.01) == []
    assert book.tick(10.0 + GRACE) == [("a", Event.NODE_LOST)]


def test_while_a_session_stands_the_hub_judges_first() -> None:
    """So a node that is back after a loss has a new session, which reports everything anew."""
    book = LeaseBook()
    book.connected("a", 1, 10.0)
    assert book.tick(10.0 + GRACE) == []
    book.disconnected("a", 1, 10.0 + GRACE)
    assert book.tick(10.0 + GRACE) == [("a", Event.NODE_LOST)]
    assert book.standing("a") is Standing.LOST


def test_a_session_that_nobody_ends_does_not_save_a_silent_node() -> None:
    book = LeaseBook()
    book.connected("a", 1, 10.0)
    assert book.tick(10.0 + GRACE + book.period) == [("a", Event.NODE_LOST)]


def test_nodes_that_left_are_forgotten_and_what_is_unknown_is_ignored() -> None:
    book = LeaseBook()
    book.follow(enlisted("a", "b"), 0.0, started=True)
    book.follow(enlisted("b"), 1.0)
    book.beat("a", 2.0)
    assert book.standing("a") is None
    assert book.take_heard() == {}


def test_watchers_hear_of_connections_and_returns_but_not_of_heartbeats() -> None:
    book, told = LeaseBook(), []
    book.watch(lambda: told.append(len(told)))
    book.connected("a", 1, 0.0)
    assert len(told) == 1
    book.beat("a", 1.0)
    assert len(told) == 1
    book.disconnected("a", 1, 2.0)
    assert len(told) == 2


def test_the_period_follows_the_fleet_and_is_stretched_before_it_is_shortened() -> None:
    book = LeaseBook()
    book.follow(enlisted(*(f"n{number}" for number in range(10_000))), 0.0, started=True)
    assert (book.period, book.grace) == (10.0, 30.0)
    book.follow(enlisted("n0"), 1.0)
    book.settle_period()
    assert (book.period, book.grace) == (2.0, 30.0)
    book.settle_period()
    assert (book.period, book.grace) == (2.0, 6.0)


def test_a_crowd_in_one_cluster_says_nothing_about_another() -> None:
    book = LeaseBook()
    crowd = [Enlisted(id=f"a{number}", cluster_id="first") for number in range(4)]
    book.follow([*crowd, Enlisted(id="b", cluster_id="second")], 0.0)
    happened = dict(book.tick(GRACE))
    assert happened.pop("b") is Event.NODE_LOST
    assert set(happened.values()) == {Event.NODE_SUSPECT}


class Stage:
    """The loop on a fake clock. `pass_time` moves it and lets the loop look."""

    def __init__(self, seeds: Seeds) -> None:
        self.seeds = seeds
        self.clock = FakeClock()
        self.book = LeaseBook()
        self.leases = Leases(seeds.store, self.book, self.clock)
        self._epochs: dict[str, int] = {}

    def connect(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self._epochs[node_id] = self._epochs.get(node_id, 0) + 1
            self.book.connected(node_id, self._epochs[node_id], self.clock.monotonic())

    def cut(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self.book.disconnected(node_id, self._epochs[node_id], self.clock.monotonic())

    def pass_time(self, seconds: float, *beating: str) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            for node_id in beating:
                self.book.beat(node_id, self.clock.monotonic())
        self.look()

    def look(self) -> None:
        self.seeds.store.changes.publish([("node", "anything")])

    async def is_listening(self) -> None:
        async def knows() -> bool:
            return self.book.deadline() < float("inf")

        await until(knows, "the loop knows the nodes")

    async def is_lost(self, node_id: str, lost: bool = True) -> None:
        async def says() -> bool:
            return (await self.seeds.at(node_id)).lost is lost

        await until(says, f"{node_id} is {'lost' if lost else 'back'}")

    async def settled(self) -> None:
        """The loop has looked at everything up to now: proven by a node it finds lost meanwhile."""
        name = f"probe{time.monotonic_ns()}"
        await self.seeds.node(name, cluster_id=None)
        self.clock.advance(1.1)  # the loop follows the list of nodes once a second

        async def followed() -> bool:
            self.look()
            return self.book.standing(f"node_{name}") is not None

        await until(followed)
        await self.seeds.store.write(lambda tx: nodes.revoke(tx, f"node_{name}"))


@pytest.fixture
async def stage(store: Store) -> Stage:
    seeds = await Seeds(store).plant()
    for name in "abc":
        await seeds.node(name)
    return Stage(seeds)


ALL = ("node_a", "node_b", "node_c")


async def test_a_silent_node_and_its_instances_are_lost_and_come_back(stage: Stage) -> None:
    seeds = stage.seeds
    web = await seeds.container("web", replicas=2)
    there = await seeds.bound(web, "node_a", 0)
    here = await seeds.bound(web, "node_b", 1)
    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect(*ALL)
        stage.pass_time(START_GRACES * GRACE, *ALL)
        stage.cut("node_a")
        stage.pass_time(GRACE, "node_b", "node_c")
        await stage.is_lost("node_a")
        gone = await seeds.instance(there[0])
        assert (gone.lost, gone.phase, gone.health) == (True, Phase.RUNNING, "unknown")
        assert (await seeds.at("node_a")).lost_at is not None
        assert not (await seeds.instance(here[0])).lost
        assert not (await seeds.at("node_b")).lost
        stage.connect("node_a")
        await stage.is_lost("node_a", False)
        back = await seeds.instance(there[0])
        # Nobody has looked yet: it counts as healthy again when its node says so.
        assert (back.lost, back.health) == (False, "unknown")
        await seeds.report(there[0], Phase.RUNNING, health="healthy")
        assert (await seeds.instance(there[0])).health == "healthy"


async def test_an_agents_restart_moves_nothing(stage: Stage) -> None:
    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect(*ALL)
        stage.pass_time(START_GRACES * GRACE, *ALL)
        stage.cut("node_a")
        stage.pass_time(GRACE - 1.2, "node_b", "node_c")
        await stage.settled()
        stage.connect("node_a")
        stage.pass_time(GRACE - 1.2, "node_b", "node_c")
        await stage.settled()
        assert not (await stage.seeds.at("node_a")).lost


async def test_when_all_fall_silent_the_coordinator_waits_for_confirmation(stage: Stage) -> None:
    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect(*ALL)
        stage.pass_time(START_GRACES * GRACE, *ALL)
        stage.cut(*ALL)
        stage.pass_time(GRACE)

        async def suspected() -> bool:
            return all(stage.book.standing(node_id) is Standing.SUSPECT for node_id in ALL)

        await until(suspected)
        await stage.settled()
        assert not any([(await stage.seeds.at(node_id)).lost for node_id in ALL])
        stage.connect("node_a")
        stage.pass_time(CONFIRMING_GRACES * GRACE, "node_a")
        await stage.is_lost("node_b")
        await stage.is_lost("node_c")
        assert not (await stage.seeds.at("node_a")).lost


async def test_after_a_start_nodes_have_twice_the_time(stage: Stage) -> None:
    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect("node_b", "node_c")
        stage.pass_time(START_GRACES * GRACE - 1.2, "node_b", "node_c")
        await stage.settled()
        assert not (await stage.seeds.at("node_a")).lost
        stage.pass_time(0.2, "node_b", "node_c")
        await stage.is_lost("node_a")


async def test_what_was_lost_before_the_start_stays_lost_until_it_is_heard(stage: Stage) -> None:
    await stage.seeds.store.write(lambda tx: nodes.set_lost(tx, ["node_a"], lost=True))
    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect("node_b", "node_c")
        await stage.settled()
        assert (await stage.seeds.at("node_a")).lost
        stage.connect("node_a")
        await stage.is_lost("node_a", False)


async def test_a_node_that_is_new_and_one_that_left(stage: Stage) -> None:
    async with running(stage.leases.run()):
        await stage.is_listening()
        await stage.seeds.node("d")
        stage.connect(*ALL, "node_d")
        await stage.seeds.store.write(lambda tx: nodes.revoke(tx, "node_a"))
        stage.pass_time(1.5, *ALL, "node_d")

        async def forgotten() -> bool:
            stage.look()
            return stage.book.standing("node_a") is None and stage.book.standing("node_d") is Standing.READY

        await until(forgotten)


async def test_last_signs_of_life_are_written_in_batches_and_at_the_end(stage: Stage) -> None:
    async def seen(node_id: str) -> float | None:
        return (await stage.seeds.at(node_id)).last_seen_at

    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect("node_a")
        heard = stage.clock.wall()
        stage.pass_time(FLUSH_SECONDS)

        async def written() -> bool:
            return await seen("node_a") == pytest.approx(heard)

        await until(written)
        stage.connect("node_b")
        last = stage.clock.wall()
        assert await seen("node_b") is None
    assert await seen("node_b") == pytest.approx(last)


async def test_the_time_in_which_the_coordinator_was_held_up_does_not_count(stage: Stage) -> None:
    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect(*ALL)
        stage.pass_time(START_GRACES * GRACE, *ALL)
        stage.cut("node_a")
        stage.pass_time(GRACE - 0.5, "node_b", "node_c")
        deadline = stage.book.deadline()
        time.sleep(2.0)  # the very thing: the event loop stands still
        stage.look()

        async def pardoned() -> bool:
            return stage.book.deadline() > deadline + 1.0

        await until(pardoned, "the leases are prolonged")
        assert not (await stage.seeds.at("node_a")).lost


async def test_a_database_that_is_away_delays_the_word_and_loses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = stage.seeds.store, stage.seeds.store.write
    failed: list[object] = []

    async def fail_twice(unit: Callable[[Tx], Awaitable[Any]]) -> Any:
        if len(failed) < 2:
            failed.append(unit)
            raise StoreError("the database cannot be written: away")
        return await write(unit)

    async with running(stage.leases.run()):
        await stage.is_listening()
        stage.connect(*ALL)
        stage.pass_time(START_GRACES * GRACE, *ALL)
        monkeypatch.setattr(store, "write", fail_twice)
        stage.cut("node_a")
        stage.pass_time(GRACE, "node_b", "node_c")
        await stage.is_lost("node_a")
    assert len(failed) == 2
