"""The loop behind all log drains: which there are, who reads for them, and what became of their lines.

It costs nothing while there is no drain. Drains are looked at when they change; a defect or a database that is away holds up
looking, not what already runs.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from coordinator.logs.broker import LogBroker
from coordinator.logs.drains.board import DrainBoard
from coordinator.logs.drains.courier import Courier
from coordinator.logs.drains.forwarder import Forwarder
from coordinator.logs.drains.making import make_target
from coordinator.logs.drains.spool import Spool
from coordinator.logs.drains.targets import DeliveryError
from coordinator.store import log_drains
from coordinator.store.database import Store
from coordinator.store.errors import StoreError
from coordinator.store.log_drains import DrainSecret, LogDrainRecord
from coordinator.store.vault import Vault, VaultError
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock
from shared.kit.seal import SealError

log = structlog.get_logger("drains")

_CURSOR = ".cursor"
_LOST = "what opens the other side cannot be read: set it again"


class LogShipper:
    """`directory`: of buffers and cursors. `limit`: bytes of one drain's buffer."""

    def __init__(
        self, store: Store, vault: Vault, broker: LogBroker, clock: Clock, directory: Path, limit: int
    ) -> None:
        self._store = store
        self._vault = vault
        self._broker = broker
        self._clock = clock
        self._directory = directory
        self._limit = limit
        self.board = DrainBoard()
        self._couriers = self.board.couriers
        self._carrying: dict[str, asyncio.Task[None]] = {}
        self._forwarders: dict[str, Forwarder] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        changes = self._store.changes.subscribe("drain")
        backoff = Backoff(base=0.5, ceiling=30.0)
        try:
            while True:
                try:
                    await self._follow()
                except (StoreError, VaultError, OSError) as error:
                    log.warning("log drains cannot be looked at", reason=str(error))
                except Exception:  # a defect here must not end the coordinator; it is logged in full, and tried again
                    log.exception("log drains cannot be looked at")
                else:
                    backoff.settled(backoff.healthy_after)
                    await changes.take()
                    continue
                await changes.take(backoff.next_delay())
        finally:
            changes.close()
            await self._close()

    # --- drains

    async def _follow(self) -> None:
        async with self._store.read() as conn:
            found = await log_drains.every(conn)
        known = {record.id: record for record, _ in found}
        for drain_id in self._couriers.keys() - known.keys():
            await self._end(drain_id)
        await asyncio.to_thread(self._sweep, set(known))
        failure: OSError | None = None
        for record, sealed_key in found:
            courier = self._couriers.get(record.id)
            if courier is None or courier.record != record:
                try:
                    await self._begin(record, sealed_key)
                except OSError as error:  # of one drain's files; the others are not to wait for it
                    failure = error
        await self._follow_organizations()
        if failure is not None:
            raise failure

    async def _begin(self, record: LogDrainRecord, sealed_key: bytes) -> None:
        """A changed drain goes on with the same buffer."""
        former = self._couriers.get(record.id)
        if former is not None:
            await self._stop(former)
            spool = former.spool
        else:
            spool = await asyncio.to_thread(Spool.open, self._directory / record.id, self._limit)
        target, problem = None, ""
        try:
            secret = self._secret(record, sealed_key)
            target = await asyncio.to_thread(make_target, record.type, record.config, secret)
        except DeliveryError as error:
            problem = str(error)
        courier = Courier(record, spool, target, self._clock)
        if target is None:
            courier.fail(problem)
        self._couriers[record.id] = courier
        self._hand_over(courier)
        if former is not None:
            await courier.store(former.take_pending())
        if record.enabled and target is not None:
            self._carrying[record.id] = asyncio.create_task(self._living(f"drain {record.id}", courier.run))

    def _hand_over(self, courier: Courier) -> None:
        """From now on lines for the drain go to this one."""
        forwarder = self._forwarders.get(courier.record.organization_id)
        if forwarder is not None:
            forwarder.couriers.pop(courier.record.id, None)
            if courier.record.enabled:
                forwarder.couriers[courier.record.id] = courier

    def _secret(self, record: LogDrainRecord, sealed_key: bytes) -> DrainSecret:
        if record.secret is None:
            return DrainSecret()
        try:
            compartment = self._vault.unlock(sealed_key, record.organization_id)
            revealed = compartment.reveal(record.secret, log_drains.drain_context(record.id))
            return msgspec.json.decode(revealed, type=DrainSecret)
        except (SealError, VaultError, ValueError) as error:
            raise DeliveryError(_LOST) from error

    async def _stop(self, courier: Courier) -> None:
        task = self._carrying.pop(courier.record.id, None)
        if task is not None:
            await courier.farewell(task)
        await courier.close()

    async def _end(self, drain_id: str) -> None:
        """The drain is gone, and so is what was buffered for it."""
        courier = self._couriers.pop(drain_id)
        forwarder = self._forwarders.get(courier.record.organization_id)
        if forwarder is not None:
            forwarder.couriers.pop(drain_id, None)
        await self._stop(courier)
        await asyncio.to_thread(shutil.rmtree, self._directory / drain_id, ignore_errors=True)

    def _sweep(self, known: set[str]) -> None:
        """Buffers of drains that went while nobody looked."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.glob("drain_*"):
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    # --- organisations

    async def _follow_organizations(self) -> None:
        wanted: dict[str, dict[str, Courier]] = {}
        for drain_id, courier in self._couriers.items():
            if courier.record.enabled:
                wanted.setdefault(courier.record.organization_id, {})[drain_id] = courier
        for organization_id in self._forwarders.keys() - wanted.keys():
            await self._silence(organization_id)
        await asyncio.to_thread(self._sweep_cursors, set(wanted))
        for organization_id, couriers in wanted.items():
            forwarder = self._forwarders.get(organization_id)
            if forwarder is None:
                path = self._directory / f"{organization_id}{_CURSOR}"
                forwarder = Forwarder(organization_id, self._store, self._broker, self._clock, path)
                self._forwarders[organization_id] = forwarder
                forwarder.couriers = couriers
                living = self._living(f"drains of {organization_id}", forwarder.run)
                self._reading[organization_id] = asyncio.create_task(living)
            else:
                forwarder.couriers = couriers
                forwarder.look_again()

    async def _silence(self, organization_id: str) -> None:
        forwarder = self._forwarders.pop(organization_id)
        await _cancelled(self._reading.pop(organization_id))
        await forwarder.forget()

    def _sweep_cursors(self, wanted: set[str]) -> None:
        for path in self._directory.glob(f"*{_CURSOR}"):
            if path.name.removesuffix(_CURSOR) not in wanted:
                path.unlink(missing_ok=True)

    async def _living(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Begin it again whenever it fails. It ends for good when the coordinator does."""
        backoff = Backoff(base=0.5, ceiling=30.0, healthy_after=30.0)
        while not self._broker.closed:
            began = self._clock.monotonic()
            try:
                await run()
            except (StoreError, OSError) as error:
                log.warning("a part of the log drains cannot work", part=name, reason=str(error))
            except Exception:  # one drain's defect is not to stop the others; it is logged in full, and tried again
                log.exception("a part of the log drains failed", part=name)
            backoff.settled(self._clock.monotonic() - began)
            if not self._broker.closed:
                await asyncio.sleep(backoff.next_delay())

    async def _close(self) -> None:
        """Reading first: what was read is to be in the buffers when they are closed."""
        for task in self._reading.values():
            await _cancelled(task)
        stopping = [self._stop(courier) for courier in self._couriers.values()]
        for result in await asyncio.gather(*stopping, return_exceptions=True):
            if isinstance(result, BaseException):
                log.warning("a drain did not stop in order", reason=str(result))
        for courier in self._couriers.values():
            try:
                await asyncio.to_thread(courier.spool.close)
            except OSError as error:
                log.warning("a drain's buffer is not closed in order", drain=courier.record.id, reason=str(error))


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
