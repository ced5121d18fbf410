"""One organisation's lines, read once for all of its drains.

It follows every instance that a drain wants, joins new ones, and hands lines to the couriers. How far it is, is kept in a file: a
cursor (see `logs.bookmark`), written after the lines before it are in the buffers. After a crash what was read since the last save
is read again, and delivered again: at least once. Lines that were written while the coordinator was away are read when it is back.
"""

import asyncio
import contextlib
from pathlib import Path

import structlog

from coordinator.logs.bookmark import Bookmark
from coordinator.logs.broker import LogBroker, LogEvent, LogGap, LogQuery, LogSubscription, LogText
from coordinator.logs.drains.courier import Courier
from coordinator.logs.drains.lines import NOTICE, Line, Origin
from coordinator.store import log_sources, private_files
from coordinator.store.changes import Subscription
from coordinator.store.database import Store
from coordinator.store.errors import StoreError
from coordinator.store.log_sources import LogOrigin
from shared.kit.clock import Clock

log = structlog.get_logger("drains")

MAX_INSTANCES = 2000
"""Of one organisation; of the rest, the oldest, no lines are drained, which every drain's status says."""
FLUSH_SECONDS = 0.25
FLUSH_BYTES = 512 * 1024
SAVE_SECONDS = 2.0
LOOK_SECONDS = 1.0
"""Between two looks for new instances."""
RESYNC_SECONDS = 30.0
ENDED_SECONDS = 600.0
"""How long after its end an instance is still read, for what it said last."""
AGAIN_SECONDS = 30.0
"""Between two tries to read an instance whose stream ended before it did."""
LEAVE_SECONDS = 10.0
_TURN = 256


class Forwarder:
    """`couriers`: of the organisation's enabled drains; replaced when they change. `path`: of the cursor."""

    def __init__(self, organization_id: str, store: Store, broker: LogBroker, clock: Clock, path: Path) -> None:
        self.organization_id = organization_id
        self.couriers: dict[str, Courier] = {}
        self._store = store
        self._broker = broker
        self._clock = clock
        self._path = path
        self._origins: dict[str, Origin] = {}
        self._present: set[str] | None = None
        self._bookmark = Bookmark(1)
        self._going: dict[str, float] = {}
        self._begun_again: dict[str, float] = {}
        self._changes: Subscription | None = None
        self._flushing = asyncio.Lock()
        self._saved = ""
        self._saved_at = 0.0

    async def run(self) -> None:
        """Until the broker closes or it is cancelled; either way what was read is buffered and the place is kept."""
        self._present = None
        self._origins, self._going, self._begun_again = {}, {}, {}
        self._bookmark = await asyncio.to_thread(self._load)
        changes = self._changes = self._store.changes.subscribe("instance", "container")
        try:
            async with self._broker.open([], LogQuery(tail=0, follow=True), expected=64) as subscription:
                looking = asyncio.create_task(self._look(subscription, changes))
                flushing = asyncio.create_task(self._flush_often())
                try:
                    await self._read(subscription)
                    if looking.done():
                        looking.result()
                finally:
                    for task in (looking, flushing):
                        task.cancel()
                        with contextlib.suppress(asyncio.CancelledError, Exception):  # its failure is told above
                            await task
        finally:
            changes.close()
            await self._flush(save=True)

    def look_again(self) -> None:
        """The couriers, or what they want, changed."""
        if self._changes is not None:
            self._changes.wake()

    async def forget(self) -> None:
        """Nobody wants the lines: where they were read to is of no use to who wants them later."""
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def _read(self, subscription: LogSubscription) -> None:
        number = 0
        async for event in subscription:
            self._take(event)
            number += 1
            if number % _TURN == 0:
                await asyncio.sleep(0)
            if max((each.pending_bytes for each in self.couriers.values()), default=0) >= FLUSH_BYTES:
                await self._flush()

    def _take(self, event: LogEvent) -> None:
        """Handed over and noted as read without a pause between: a save sees both or neither."""
        origin = self._origins.get(event.instance_id)
        if isinstance(event, LogText):
            self._bookmark.passed(event.instance_id, event.at_ns, event.stream, event.text)
        if origin is None:
            return
        line = self._line(event)
        for courier in self.couriers.values():
            courier.offer(origin, line)

    def _line(self, event: LogEvent) -> Line:
        match event:
            case LogText():
                return Line(event.at_ns, 0, event.stream, event.text)
            case LogGap():
                text = f"{event.lines} lines ({event.bytes} bytes) dropped: they came faster than they were read"
                return Line(event.at_ns, 0, NOTICE, text, event.lines)
            case _:
                return Line(int(self._clock.wall() * 1e9), 0, NOTICE, event.message)

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush()

    async def _flush(self, *, save: bool = False) -> None:
        """Goes on to its end whoever is cancelled meanwhile: what was taken from the couriers is nowhere else. The next one
        waits."""
        await asyncio.shield(asyncio.ensure_future(self._flush_now(save)))

    async def _flush_now(self, save: bool) -> None:
        async with self._flushing:
            now = self._clock.monotonic()
            save = save or now - self._saved_at >= SAVE_SECONDS
            cursor = self._bookmark.cursor() if save else self._saved
            pending = [(courier, courier.take_pending()) for courier in self.couriers.values()]
            for courier, entries in pending:
                await courier.store(entries)
            if save and cursor != self._saved and self._present is not None:
                self._saved_at = now
                try:
                    await asyncio.to_thread(private_files.replace, self._path, cursor.encode())
                    self._saved = cursor
                except OSError as error:
                    log.warning("where logs were read to cannot be kept", path=str(self._path), reason=str(error))

    def _load(self) -> Bookmark:
        try:
            self._saved = self._path.read_text()
            return Bookmark.read(self._saved)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("where logs were read to is not known: beginning now", path=str(self._path), reason=str(error))
        return Bookmark(int(self._clock.wall() * 1e9))

    # --- what to read

    async def _look(self, subscription: LogSubscription, changes: Subscription) -> None:
        """Without it nothing new is read, so however it ends, the reading ends too, and begins again."""
        try:
            while True:
                try:
                    await self._join(subscription)
                except StoreError as error:
                    log.warning("instances cannot be looked up", organization=self.organization_id, reason=str(error))
                await asyncio.sleep(LOOK_SECONDS)
                await changes.take(RESYNC_SECONDS)
        finally:
            subscription.close()

    async def _join(self, subscription: LogSubscription) -> None:
        async with self._store.read() as conn:
            found = await log_sources.readable(
                conn,
                self.organization_id,
                await log_sources.clusters_of(conn, self.organization_id),
                limit=MAX_INSTANCES + 1,
                ended_after=self._clock.wall() - ENDED_SECONDS,
            )
        if len(found) > MAX_INSTANCES:
            for courier in self.couriers.values():
                courier.fail(f"only {MAX_INSTANCES} instances are read, the newest")
        wanted: set[str] = set()
        for one in found[:MAX_INSTANCES]:
            origin = self._origin(one)
            if any(courier.wants(origin) for courier in self.couriers.values()):
                self._origins[one.instance_id] = origin
                wanted.add(one.instance_id)
                self._add(subscription, one)
        self._leave(subscription, wanted)
        self._bookmark.begin()
        self._present = {one.instance_id for one in found}
        self._begun_again = {key: at for key, at in self._begun_again.items() if key in self._present}

    def _leave(self, subscription: LogSubscription, wanted: set[str]) -> None:
        """What is gone is left a little later: its last lines may be on their way still."""
        now = self._clock.monotonic()
        self._going = {gone: self._going.get(gone, now) for gone in self._origins.keys() - wanted}
        for gone in [gone for gone, since in self._going.items() if now - since >= LEAVE_SECONDS]:
            subscription.leave(gone)
            del self._origins[gone], self._going[gone]
        self._bookmark.keep(self._origins)

    def _add(self, subscription: LogSubscription, one: LogOrigin) -> None:
        """A stream that ended although its instance goes on, as on a node that served too many, is begun again where it ended. An
        instance that was there before and that nobody wanted is read from now on."""
        instance_id = one.instance_id
        if instance_id in subscription.reading:
            return
        if subscription.knows(instance_id):
            now = self._clock.monotonic()
            if now - self._begun_again.get(instance_id, -AGAIN_SECONDS) >= AGAIN_SECONDS:
                self._begun_again[instance_id] = now
                subscription.leave(instance_id)
                subscription.add(instance_id, one.node_id, self._bookmark.position(instance_id))
        elif self._present is not None and instance_id in self._present:
            self._bookmark.enter(instance_id, int(self._clock.wall() * 1e9))
            subscription.add(instance_id, one.node_id)
        else:
            subscription.add(instance_id, one.node_id, self._bookmark.start(instance_id))

    def _origin(self, one: LogOrigin) -> Origin:
        return Origin(
            organization_id=self.organization_id,
            project_id=one.project_id,
            project=one.project,
            environment_id=one.environment_id,
            environment=one.environment,
            container_id=one.container_id,
            container=one.container,
            instance_id=one.instance_id,
            node_id=one.node_id,
        )
