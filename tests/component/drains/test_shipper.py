"""The whole way of drained lines: nodes with the agent's own streams, the broker, the store, real endpoints, and restarts."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.logs.broker import LogBroker
from coordinator.logs.drains import forwarder as forwarder_module
from coordinator.logs.drains.shipper import LogShipper
from coordinator.store import instances, log_drains
from coordinator.store.database import Store
from coordinator.store.log_drains import DrainConfig, LogDrainRecord
from coordinator.store.vault import Vault
from shared.kit.clock import SystemClock
from shared.kit.ids import new_id
from shared.spec.instance import Phase
from shared.wire.frames import LogCancel, LogLine, LogSubscribe
from tests.fakes.log_nodes import LogNodes
from tests.fakes.receiver import Receiver
from tests.fakes.seeds import Seeds, until

MIB = 2**20


class Scene:
    """One organisation with a node, drains on a directory, and a shipper that can be restarted."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.seeds = Seeds(store)
        self.clock = SystemClock()
        self.nodes = LogNodes(LogBroker(self.clock))
        self.shipper: LogShipper | None = None
        self.drains: dict[str, LogDrainRecord] = {}

    async def plant(self) -> "Scene":
        await self.seeds.plant()
        self.node_id = await self.seeds.node("n1")
        return self

    @asynccontextmanager
    async def shipping(self, limit: int = MIB, *, orderly: bool = True) -> AsyncIterator[LogShipper]:
        """A coordinator's life: with an orderly end, the broker closes before the loops."""
        broker = LogBroker(self.clock)
        self.nodes.broker = broker
        broker.attach(self.nodes)
        shipper = LogShipper(self.store, Vault(b"k" * 32), broker, self.clock, self.directory, limit)
        task = asyncio.create_task(shipper.run())
        self.shipper = shipper
        try:
            yield shipper
            assert not task.done()
        finally:
            if orderly:
                broker.close()
            task.cancel()
            await asyncio.wait({task})
            broker.close()

    async def drain(self, url: str, name: str = "d", **config: Any) -> str:
        record = LogDrainRecord(
            id=new_id("drain"),
            organization_id=self.seeds.organization_id,
            name=name,
            type="http",
            config=msgspec.convert({"url": url, **config}, DrainConfig),
            created_by="user_1",
            created_at=0.0,
            updated_at=0.0,
        )
        await self.store.write(lambda tx: log_drains.insert(tx, record))
        self.drains[record.id] = record
        return record.id

    async def change(self, drain_id: str, **changes: Any) -> None:
        await self.store.write(lambda tx: log_drains.change(tx, self.drains[drain_id], **changes))

    async def running(self, name: str = "web", slot: int = 0) -> tuple[str, str]:
        """(container, instance) that runs."""
        container_id = await self.seeds.container(name)
        (instance_id,) = await self.seeds.bound(container_id, self.node_id, slot)
        self.nodes.log(instance_id)
        return container_id, instance_id

    def write(self, instance_id: str, *texts: str, stream: int = 1) -> None:
        log = self.nodes.log(instance_id)
        at = max(int(self.clock.wall() * 1e9), log.lines[-1].at_ns if log.lines else 0)
        log.write(*(LogLine(at, stream, text) for text in texts))

    async def known(self, *drain_ids: str) -> None:
        async def all_known() -> bool:
            return self.shipper is not None and all(self.shipper.board.status(one) for one in drain_ids)

        await until(all_known, "the shipper knows the drains")

    async def read_by(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.nodes.asked()) >= count

        await until(enough, f"{count} instances are read")


@pytest.fixture
async def scene(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(forwarder_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(forwarder_module, "FLUSH_SECONDS", 0.02)
    made = await Scene(store, tmp_path / "drains").plant()
    yield made
    await made.nodes.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().running() as started:
        yield started


async def has(receiver: Receiver, lines: list[str], order: Callable[[list[str]], list[str]] = list) -> None:
    async def there() -> bool:
        return len(receiver.lines()) >= len(lines)

    await until(there, f"{len(lines)} lines arrived")
    assert order(receiver.lines()) == order(lines)


async def test_without_a_drain_nothing_is_read(scene: Scene, receiver: Receiver) -> None:
    _, instance_id = await scene.running()
    async with scene.shipping():
        scene.write(instance_id, "nobody reads this")
        await scene.running("other")
        assert scene.nodes.sent == []
        await scene.drain(receiver.url)
        await scene.read_by(2)
        scene.write(instance_id, "this is read")
        await has(receiver, ["this is read"])


async def test_lines_from_now_on_arrive_once_with_their_words(scene: Scene, receiver: Receiver) -> None:
    container_id, instance_id = await scene.running()
    scene.write(instance_id, "before there was a drain")
    async with scene.shipping() as shipper:
        drain_id = await scene.drain(receiver.url)
        await scene.read_by(1)
        scene.write(instance_id, "a", "b")
        scene.write(instance_id, "c", stream=2)
        await has(receiver, ["a", "b", "c"])
        status = shipper.board.status(drain_id)
        assert status is not None
        assert (status.state, status.dropped) == ("delivering", 0)
    first = receiver.accepted[0].objects()[0]
    assert (first["containerId"], first["container"], first["instanceId"]) == (container_id, "web", instance_id)
    assert (first["project"], first["environment"], first["nodeId"]) == ("shop", "production", scene.node_id)
    assert first["stream"] == "stdout"


async def test_what_appears_is_read_from_its_first_line(scene: Scene, receiver: Receiver) -> None:
    await scene.running()
    async with scene.shipping():
        await scene.drain(receiver.url)
        await scene.read_by(1)
        container_id = await scene.seeds.container("late")
        (instance_id,) = await scene.seeds.pending(container_id, 0)
        scene.write(instance_id, "the very first", "the second")
        await scene.store.write(lambda tx: instances.assign(tx, {instance_id: scene.node_id}))
        await scene.seeds.report(instance_id, Phase.RUNNING, health="healthy")
        await has(receiver, ["the very first", "the second"])


async def test_a_restart_goes_on_where_it_was_and_misses_nothing(scene: Scene, receiver: Receiver) -> None:
    _, instance_id = await scene.running()
    expected: list[str] = []

    def write(number: int) -> None:
        texts = [f"{number}.{each}" for each in range(50)]
        expected.extend(texts)
        scene.write(instance_id, *texts)  # fifty lines of one time

    async with scene.shipping():
        await scene.drain(receiver.url)
        await scene.read_by(1)
        write(0)
        await has(receiver, expected)
    for number in range(1, 4):
        write(number)  # while the coordinator is away
        async with scene.shipping():
            await scene.read_by(number + 1)
            write(10 + number)
            await has(receiver, expected)


async def test_a_kill_repeats_at_most_and_misses_nothing(
    scene: Scene, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that is killed saves nothing at its end: what is on the disk at any moment is enough."""
    monkeypatch.setattr(forwarder_module, "SAVE_SECONDS", 0.1)
    _, instance_id = await scene.running()
    frozen = scene.directory.with_name("frozen")
    async with scene.shipping():
        await scene.drain(receiver.url)
        await scene.read_by(1)
        scene.write(instance_id, *[f"a{number}" for number in range(100)])
        await has(receiver, [f"a{number}" for number in range(100)])
        scene.write(instance_id, *[f"b{number}" for number in range(100)])
        await asyncio.to_thread(shutil.copytree, scene.directory, frozen)  # what a kill right now would leave
    scene.directory = frozen
    scene.write(instance_id, *[f"c{number}" for number in range(100)])
    async with scene.shipping():
        wanted = {f"{letter}{number}" for letter in "abc" for number in range(100)}

        async def everything() -> bool:
            return wanted <= set(receiver.lines())

        await until(everything)


async def test_a_dead_and_a_slow_drain_hold_up_nobody(scene: Scene, receiver: Receiver) -> None:
    _, instance_id = await scene.running()
    async with Receiver().running() as stuck, scene.shipping(limit=256 * 1024) as shipper:
        stuck.open.clear()
        slow = await scene.drain(stuck.url, "slow")
        dead = await scene.drain("http://127.0.0.1:9", "dead")
        good = await scene.drain(receiver.url, "good")
        await scene.known(slow, dead, good)
        await scene.read_by(1)
        expected = []
        for number in range(30):
            texts = [f"{number}.{each} " + "x" * 400 for each in range(50)]
            expected += texts
            scene.write(instance_id, *texts)
            await has(receiver, expected)
        for drain_id in (slow, dead):
            status = shipper.board.status(drain_id)
            assert status is not None
            assert status.delivered == 0
            assert status.dropped > 0, "far more than its buffer holds"
            assert status.dropped + status.buffered <= 1500
        failing = shipper.board.status(dead)
        assert failing is not None
        assert failing.state == "failing"


async def test_drains_come_change_and_go(scene: Scene, receiver: Receiver) -> None:
    container_id, web = await scene.running("web")
    other_id, other = await scene.running("other")
    async with scene.shipping() as shipper:
        drain_id = await scene.drain(receiver.url, filter={"container_id": container_id})
        await scene.read_by(1)
        scene.write(other, "not wanted, and not even read")
        scene.write(web, "wanted")
        await has(receiver, ["wanted"])
        assert set(scene.nodes.asked()) == {web}
        config = msgspec.convert({"url": receiver.url, "filter": {"container_id": other_id}}, DrainConfig)
        await scene.change(drain_id, config=config)
        await scene.read_by(2)
        scene.write(web, "no longer")
        scene.write(other, "now")
        await has(receiver, ["wanted", "now"])
        await scene.change(drain_id, enabled=False)

        async def silent() -> bool:
            cancelled = [frame for _, frame in scene.nodes.sent if isinstance(frame, LogCancel)]
            return len(cancelled) >= len(scene.nodes.asked())

        await until(silent, "nobody reads any more")
        status = shipper.board.status(drain_id)
        assert status is not None
        assert (status.state, status.delivered) == ("disabled", 2)
        scene.write(other, "while it was off")
        await scene.change(drain_id, enabled=True)
        await scene.read_by(3)
        scene.write(other, "on again")
        await has(receiver, ["wanted", "now", "on again"])
        await scene.store.write(lambda tx: log_drains.remove(tx, scene.drains[drain_id]))

        async def gone() -> bool:
            return shipper.board.status(drain_id) is None and not list(scene.directory.iterdir())

        await until(gone, "neither buffer nor cursor is left")


async def test_a_node_that_was_away_is_read_on_where_it_was(scene: Scene, receiver: Receiver) -> None:
    _, instance_id = await scene.running()
    async with scene.shipping():
        await scene.drain(receiver.url)
        await scene.read_by(1)
        scene.write(instance_id, "a", "b")
        await has(receiver, ["a", "b"])
        scene.nodes.leave(scene.node_id)
        scene.write(instance_id, "c", "d")
        scene.nodes.come_back(scene.node_id)
        scene.write(instance_id, "e")
        await has(receiver, ["a", "b", "c", "d", "e"])
    assert any("not connected" in notice["line"] for notice in receiver.notices())


async def test_buffers_of_drains_that_went_while_nobody_looked_are_swept(scene: Scene, receiver: Receiver) -> None:
    left = scene.directory / "drain_gone"
    await asyncio.to_thread(left.mkdir, parents=True)
    async with scene.shipping():

        async def swept() -> bool:
            return not left.exists()

        await until(swept)


async def test_a_stream_that_a_node_refused_is_begun_again(
    scene: Scene, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder_module, "AGAIN_SECONDS", 0.1)
    container_id = await scene.seeds.container("web")
    (instance_id,) = await scene.seeds.bound(container_id, scene.node_id, 0)
    async with scene.shipping():  # the node does not know its engine container yet, and says so
        await scene.drain(receiver.url)
        await scene.read_by(1)
        scene.nodes.log(instance_id)
        await scene.seeds.bound(container_id, scene.node_id, 1)

        async def again() -> bool:
            await scene.seeds.change_container(container_id, desired="running")
            return scene.nodes.asked().count(instance_id) >= 2

        await until(again)
        scene.write(instance_id, "at last")
        await has(receiver, ["at last"])


async def test_every_subscription_is_within_its_credit(scene: Scene, receiver: Receiver) -> None:
    for number in range(5):
        await scene.running(f"web-{number}")
    async with scene.shipping():
        await scene.drain(receiver.url)
        await scene.read_by(5)
    credit = sum(frame.credit for _, frame in scene.nodes.sent if isinstance(frame, LogSubscribe))
    assert credit <= MIB
