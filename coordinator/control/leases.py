"""Which nodes live, as far as we can know: heartbeats in memory, and what follows from their absence in the database.

Heartbeats are far too many to be rows. The book keeps them, the hub feeds it, and the loop writes only what changes: a node lost or
back, with its instances in the same transaction, and `last_seen_at` in batches. What was written is compared with what the book
says each time, so a database that is away for a while costs a delay and no statement.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import structlog

from coordinator.control.loop import keep
from coordinator.core import lease
from coordinator.core.lease import Beat, Dropped, Event, Lease, Standing, Tick
from coordinator.store import instances, nodes
from coordinator.store.changes import Subscription
from coordinator.store.database import Store
from coordinator.store.errors import StoreError
from coordinator.store.nodes import Enlisted
from coordinator.store.writer import Tx
from shared.kit.clock import Clock

LONGEST_SLEEP = 0.5
HELD_UP = 1.0
"""Seconds by which the event loop must be late before the coordinator takes itself for having been held up."""
FOLLOW_SECONDS = 1.0
FLUSH_SECONDS = 30.0

log = structlog.get_logger()


class LeaseBook:
    """Times are the coordinator's monotonic clock. The hub calls `connected`, `beat` and `disconnected`; a session that was
    replaced may end after the newer one began, so both ends name their epoch."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._clusters: dict[str, str | None] = {}
        self._epochs: dict[str, int] = {}
        self._heard: set[str] = set()
        self._watchers: list[Callable[[], None]] = []
        self._periods = (lease.SHORTEST_PERIOD, lease.SHORTEST_PERIOD)

    @property
    def period(self) -> float:
        """Seconds between heartbeats: what `ready` and every acknowledgement tells the agents."""
        return self._periods[1]

    @property
    def grace(self) -> float:
        """Silence that ends a session."""
        return lease.PERIODS_OF_GRACE * max(self._periods)

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called when a node connects, disconnects or is heard again: who may take instances may have changed."""
        self._watchers.append(changed)

    def connected(self, node_id: str, epoch: int, now: float) -> None:
        self._epochs[node_id] = epoch
        if node_id not in self._leases:
            self._clusters.setdefault(node_id, None)
            self._leases[node_id] = lease.grant(now, self.period)
        self.beat(node_id, now)
        self._tell()

    def disconnected(self, node_id: str, epoch: int, now: float) -> None:
        if self._epochs.get(node_id) != epoch:
            return
        del self._epochs[node_id]
        if node_id in self._leases:
            self._leases[node_id], _, _ = lease.step(self._leases[node_id], Dropped(now))
        self._tell()

    def beat(self, node_id: str, now: float) -> None:
        """Anything was heard of the node."""
        known = self._leases.get(node_id)
        if known is None:
            return
        # An agent learns of a shorter period by its next heartbeat only: until then it is judged by the longer one.
        self._leases[node_id], events, _ = lease.step(known, Beat(now, max(self._periods)))
        self._heard.add(node_id)
        if events:
            self._tell()

    @property
    def connected_count(self) -> int:
        return len(self._epochs)

    def is_connected(self, node_id: str) -> bool:
        return node_id in self._epochs

    def heard_at(self, node_id: str) -> float | None:
        """When a node that has a session was last heard."""
        return self._leases[node_id].heard_at if node_id in self._epochs and node_id in self._leases else None

    def standing(self, node_id: str) -> Standing | None:
        """None: not heard of since it left, or never known."""
        known = self._leases.get(node_id)
        return None if known is None else known.standing

    def lost(self) -> set[str]:
        return {node_id for node_id, known in self._leases.items() if known.standing is Standing.LOST}

    def follow(self, roster: Iterable[Enlisted], now: float, *, started: bool = False) -> None:
        """Know exactly these nodes. `started`: the coordinator has only just begun to listen."""
        known = {each.id: each for each in roster}
        for node_id in self._leases.keys() - known.keys():
            del self._leases[node_id]
            self._heard.discard(node_id)
        if started:
            self._periods = (lease.period(len(known)),) * 2
        graces = lease.START_GRACES if started else 1
        for node_id in known.keys() - self._leases.keys():
            self._leases[node_id] = lease.grant(now, self.period, graces=graces, lost=known[node_id].lost)
        self._clusters = {node_id: each.cluster_id for node_id, each in known.items()}

    def tick(self, now: float) -> list[tuple[str, Event]]:
        """Judge every lease that is over."""
        due = [node_id for node_id, known in self._leases.items() if self._is_due(node_id, known, now)]
        if not due:
            return []
        crowds: dict[str | None, list[Lease]] = defaultdict(list)
        for node_id, known in self._leases.items():
            crowds[self._clusters.get(node_id)].append(known)
        doubtful = {cluster_id for cluster_id, crowd in crowds.items() if lease.doubts_itself(crowd, now)}
        happened: list[tuple[str, Event]] = []
        for node_id in due:
            trusted = self._clusters.get(node_id) not in doubtful
            self._leases[node_id], events, _ = lease.step(self._leases[node_id], Tick(now, trusted))
            happened += [(node_id, event) for event in events]
        return happened

    def deadline(self) -> float:
        """When the next lease is over, if nothing is heard until then."""
        return min((known.expires_at for known in self._leases.values()), default=lease.NEVER)

    def pardon(self, now: float, absent: float) -> None:
        self._leases = lease.pardon(self._leases, now, absent)

    def settle_period(self) -> None:
        """Follow the fleet's size. Called rarely enough that every agent has heard of a period before it is replaced."""
        self._periods = (self._periods[1], lease.period(len(self._leases)))

    def take_heard(self) -> dict[str, float]:
        """Who was heard since the last call, and when."""
        taken, self._heard = self._heard, set()
        return {node_id: self._leases[node_id].heard_at for node_id in taken if node_id in self._leases}

    def _is_due(self, node_id: str, known: Lease, now: float) -> bool:
        # As long as a session stands the hub is about to judge it by the same silence. Its end comes first, so that a node
        # that is back after a loss is always one with a new session, which reports everything again.
        allowed = known.period if node_id in self._epochs else 0.0
        return known.expires_at + allowed <= now

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


class Leases:
    """The loop that turns the book's judgement into rows."""

    def __init__(self, store: Store, book: LeaseBook, clock: Clock) -> None:
        self._store = store
        self._book = book
        self._clock = clock
        self._changes: Subscription = store.changes.subscribe("node")
        book.watch(self._changes.wake)
        self._recorded: set[str] = set()
        self._listening = False
        self._stale = True
        self._followed_at = self._flushed_at = clock.monotonic()
        self._pulse_due = lease.NEVER

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pulse())
                tasks.create_task(keep("leases", self._turn))
        finally:
            self._changes.close()
            try:
                await self._flush()
            except StoreError as error:
                log.warning("the nodes' last signs of life are not stored", reason=str(error))

    async def _turn(self, afresh: bool) -> None:
        if not afresh:
            self._stale |= bool(await self._changes.take(self._sleep()))
        now = self._clock.monotonic()
        if afresh or (self._stale and now - self._followed_at >= FOLLOW_SECONDS):
            await self._follow()
        self._judge()
        await self._record()
        if self._clock.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            await self._flush()
            self._book.settle_period()

    def _sleep(self) -> float:
        return max(0.01, min(LONGEST_SLEEP, self._book.deadline() - self._clock.monotonic()))

    async def _pulse(self) -> None:
        """Be late when the event loop is: by the loop's own clock, whatever the clock of the leases is."""
        loop = asyncio.get_running_loop()
        while True:
            self._pulse_due = loop.time() + LONGEST_SLEEP
            await asyncio.sleep(LONGEST_SLEEP)
            self._notice_hold_up()

    def _notice_hold_up(self) -> None:
        now = asyncio.get_running_loop().time()
        absent = now - self._pulse_due
        if absent > HELD_UP:
            log.warning("the coordinator was held up and could hear no node meanwhile", seconds=round(absent, 1))
            self._pulse_due = now + LONGEST_SLEEP
            self._book.pardon(self._clock.monotonic(), absent)

    async def _follow(self) -> None:
        self._stale = False
        self._followed_at = self._clock.monotonic()
        async with self._store.read() as conn:
            roster = await nodes.roster(conn)
        self._book.follow(roster, self._clock.monotonic(), started=not self._listening)
        self._listening = True
        self._recorded = {each.id for each in roster if each.lost}

    def _judge(self) -> None:
        self._notice_hold_up()
        counts: Counter[Event] = Counter()
        for node_id, event in self._book.tick(self._clock.monotonic()):
            counts[event] += 1
            if event is Event.NODE_LOST:
                log.warning("a node is lost", node=node_id)
        if counts[Event.NODE_SUSPECT]:
            log.error(
                "many nodes fell silent at once: waiting before they count as lost", nodes=counts[Event.NODE_SUSPECT]
            )

    async def _record(self) -> None:
        """From the judgement to the writer's queue there is no pause, so that what a node that is back reports by then comes
        after what is written about its absence."""
        gone = self._book.lost() - self._recorded
        if gone:
            await self._store.write(lambda tx: _flag(tx, gone, lost=True))
            self._recorded |= gone
        back = self._recorded - self._book.lost()
        if back:
            await self._store.write(lambda tx: _flag(tx, back, lost=False))
            self._recorded -= back
            log.info("nodes are back", nodes=sorted(back))

    async def _flush(self) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._flushed_at = now
        seen = {node_id: wall - (now - heard_at) for node_id, heard_at in self._book.take_heard().items()}
        if seen:
            await self._store.write(lambda tx: nodes.mark_seen(tx, seen))


async def _flag(tx: Tx, node_ids: set[str], *, lost: bool) -> None:
    await nodes.set_lost(tx, node_ids, lost=lost)
    await instances.set_lost(tx, node_ids, lost=lost)
