"""Nodes as the store sees them: pending instances get a node, bound ones run, tombstones are obeyed, all within milliseconds.

It stands for the scheduler and every agent, by the very writes those make, so that tests of the coordinator's loops see only the
order of facts and none of the machinery.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.store import instances, nodes, reports
from coordinator.store.instances import InstanceRecord
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, Health, InstanceReport, Phase
from shared.spec.reason import Reason
from tests.fakes.seeds import Seeds

Verdict = tuple[Phase, Health, Reason | None]
HEALTHY: Verdict = (Phase.RUNNING, "healthy", None)


@dataclass
class Fleet:
    """`verdict`: what becomes of an instance that is to run. `silent`: nodes that report nothing and get nothing."""

    seeds: Seeds
    node_ids: list[str]
    verdict: Callable[[InstanceRecord], Verdict] = lambda _: HEALTHY
    silent: set[str] = field(default_factory=set)
    held: int = 10**9
    """How many more may become anything; lowered to stop a rollout in its middle."""

    async def run(self) -> None:
        changes = self.seeds.store.changes.subscribe("instance", "node")
        try:
            while True:
                await self._serve()
                await changes.take(0.2)
        finally:
            changes.close()

    async def _serve(self) -> None:
        async with self.seeds.store.read() as conn:
            known = await instances.every(conn)
            open_nodes = [
                node.id for node in await nodes.every(conn) if node.availability == "active" and not node.lost
            ]
        usable = [node_id for node_id in self.node_ids if node_id in open_nodes and node_id not in self.silent]
        for record in known:
            if record.node_id is None:
                await self._place(record, usable)
            elif record.node_id not in self.silent:
                await self._report(record)

    async def _place(self, record: InstanceRecord, usable: list[str]) -> None:
        fit = [node_id for node_id in usable if node_id not in record.avoid_nodes]
        if record.goal == "run" and fit:
            node_id = record.prefer_node if record.prefer_node in fit else fit[record.slot % len(fit)]
            assert node_id is not None
            await self.seeds.store.write(lambda tx: instances.assign(tx, {record.id: node_id}))

    async def _report(self, record: InstanceRecord) -> None:
        phase, health, reason = self._wanted(record)
        if (record.phase, record.health) == (phase, health) or self.held <= 0:
            return
        if phase is Phase.RUNNING and record.phase is not Phase.RUNNING:
            self.held -= 1
        report = InstanceReport(record.id, max(1, record.attempt), phase, health=health, reason=reason, started_at=1.0)

        async def unit(tx: Tx) -> None:
            assert record.node_id is not None
            epoch = await nodes.epoch(tx.conn, record.node_id)
            assert epoch is not None
            await reports.apply_reports(tx, record.node_id, epoch, [report])

        await self.seeds.store.write(unit)

    def _wanted(self, record: InstanceRecord) -> Verdict:
        if record.goal == "remove":
            return Phase.REMOVED, "unknown", None
        if record.phase in TERMINAL:
            return record.phase, record.health, record.reason
        return (Phase.STOPPED, "unknown", None) if record.goal == "stop" else self.verdict(record)
