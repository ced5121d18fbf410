"""What a session does with the database once its node is admitted: reports in, assignments out, facts noted.

One task does it in turn, woken by whoever has something for it. A database that is away costs a delay: nothing is lost and
nothing is acknowledged before it is stored.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

import structlog

from coordinator.hub.assignments import Recipient
from coordinator.hub.clean import clean_facts, clean_host, clean_sample
from coordinator.hub.greeting import Admitted
from coordinator.hub.intake import Intake
from coordinator.hub.lanes import Lanes
from coordinator.hub.outbox import Outbox
from coordinator.hub.parts import HubParts
from coordinator.store import nodes, reports
from coordinator.store.errors import StoreError
from coordinator.store.reports import Applied
from shared.kit.wakeup import Wakeup
from shared.spec.node import NodeFacts
from shared.wire.closing import CloseReason
from shared.wire.codec import encode
from shared.wire.frames import (
    AgentEnroll,
    AgentFrame,
    AgentHello,
    AgentOpen,
    AssignmentAck,
    AssignmentNeed,
    InstanceReports,
    LeaseRenew,
    LogChunk,
    LogEnd,
    MetricsSample,
    NodeStatus,
    ReportAck,
)

log = structlog.get_logger()
RETRY_SECONDS = 1.0
PACE_SECONDS = 1.0
"""Facts are stored, and complete sets built, at most this often for one session: an agent gone mad wears out itself only."""

METRICS_SECONDS = 0.5
"""Metrics are looked at at most this often."""


class Worker:
    """`close(reason, message)` ends the session."""

    def __init__(
        self,
        parts: HubParts,
        admitted: Admitted,
        held: int | None,
        lanes: Lanes,
        close: Callable[[CloseReason, str], None],
    ) -> None:
        node = admitted.node
        self._parts = parts
        self._node_id = node.id
        self._epoch = admitted.epoch
        self._lanes = lanes
        self._close = close
        self._intake = Intake()
        self._outbox = Outbox(parts.store, parts.vault, Recipient(node.id, node.sealing_key), held, admitted.doomed)
        self._facts = admitted.facts
        self._new_facts: NodeFacts | None = None
        self._need = False
        self._paced = {"facts": float("-inf"), "set": float("-inf")}
        self._wakeup = Wakeup()
        self._foreign: int = 0
        self._metrics_at = float("-inf")

    @property
    def sequence(self) -> int | None:
        """Of the assignment set as last sent."""
        return self._outbox.sequence

    def wake(self) -> None:
        self._wakeup.wake()

    def receive(self, frame: AgentFrame) -> None:
        """Never waits: the reader goes on at once."""
        match frame:
            case InstanceReports():
                if not self._intake.put(frame):
                    self._close(CloseReason.PROTOCOL_ERROR, "more instances are reported than a node can hold")
                self._wakeup.wake()
            case NodeStatus():
                self._new_facts = clean_facts(frame.facts)
                self._wakeup.wake()
            case AssignmentNeed():
                self._need = True
                self._wakeup.wake()
            case AssignmentAck():
                pass  # what was sent is compared with what is stored; that it arrived is told by the reports it leads to
            case MetricsSample():
                self._take_metrics(frame)
            case LogChunk():
                self._parts.broker.chunk(self._node_id, frame)
            case LogEnd():
                self._parts.broker.end(self._node_id, frame)
            case AgentOpen() | AgentEnroll() | AgentHello() | LeaseRenew():
                raise AssertionError("the session takes these itself")
            case _:
                assert_never(frame)

    def _take_metrics(self, frame: MetricsSample) -> None:
        """What comes too soon after the last is dropped: the next one tells as much."""
        now = self._parts.clock.monotonic()
        if now < self._metrics_at + METRICS_SECONDS:
            return
        self._metrics_at = now
        samples = [clean_sample(sample) for sample in frame.instances]
        self._parts.samples.add(self._node_id, clean_host(frame.host), samples, now)

    async def run(self) -> None:
        while True:
            try:
                await self._store_facts()
                await self._store_reports()
                await self._send_assignments()
                await self._wakeup.wait(self._pause())
            except StoreError as error:
                log.warning("a session waits for the database", node=self._node_id, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # A fault of ours must not leave a session that looks alive and does nothing: the next one starts from what is
                # stored.
                log.exception("a session failed", node=self._node_id)
                self._close(CloseReason.GOING_AWAY, "the coordinator failed to serve this session")
                return

    def _pause(self) -> float | None:
        """Until what was put off may be done."""
        waiting = [self._paced[what] for what, pending in (("facts", self._new_facts), ("set", self._need)) if pending]
        return min(waiting) + PACE_SECONDS - self._parts.clock.monotonic() if waiting else None

    def _may(self, what: str) -> bool:
        now = self._parts.clock.monotonic()
        if now < self._paced[what] + PACE_SECONDS:
            return False
        self._paced[what] = now
        return True

    async def _store_facts(self) -> None:
        facts, node_id = self._new_facts, self._node_id
        if facts is None or not self._may("facts"):
            return
        if facts != self._facts:
            await self._parts.store.write(lambda tx: nodes.change(tx, node_id, facts=facts))
            self._facts = facts
        if self._new_facts is facts:
            self._new_facts = None

    async def _store_reports(self) -> None:
        taken = self._intake.take()
        if taken is None:
            return
        node_id, epoch = self._node_id, self._epoch
        try:
            applied = await self._parts.store.write(lambda tx: reports.apply_reports(tx, node_id, epoch, taken.reports))
        except StoreError:
            self._intake.put_back(taken)
            raise
        if not applied.current:
            self._close(CloseReason.REVOKED if applied.revoked else CloseReason.SUPERSEDED, "")
            return
        for batch in taken.batches:
            self._lanes.control(encode(ReportAck(batch)))
        self._note(applied)

    def _note(self, applied: Applied) -> None:
        if applied.gone:
            self._outbox.forget(applied.gone)
        if applied.foreign:
            if not self._foreign:
                log.warning(
                    "node reports on instances that are not its own", node=self._node_id, ids=applied.foreign[:20]
                )
            self._foreign += len(applied.foreign)

    async def _send_assignments(self) -> None:
        if self._need and self._may("set"):
            self._need = False
            self._outbox.need_set()
        sending = await self._outbox.next()
        if sending.revoked:
            self._close(CloseReason.REVOKED, "")
            return
        for data in sending.frames:
            self._lanes.control(data)
        if sending.refused:
            node_id = self._node_id
            await self._parts.store.write(lambda tx: reports.reject(tx, node_id, sending.refused))
