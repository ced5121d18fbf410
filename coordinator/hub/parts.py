"""What the hub stands on, and the little it needs to know of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.vault import Vault
from shared.kit.clock import Clock
from shared.kit.seal import SealingKey, SigningKey
from shared.spec.node import HostSample, InstanceSample
from shared.wire.frames import LogChunk, LogEnd


class Leases(Protocol):
    """`coordinator.control.leases.LeaseBook`."""

    @property
    def period(self) -> float: ...

    @property
    def grace(self) -> float: ...

    def connected(self, node_id: str, epoch: int, now: float) -> None: ...

    def disconnected(self, node_id: str, epoch: int, now: float) -> None: ...

    def beat(self, node_id: str, now: float) -> None: ...


class Samples(Protocol):
    """`coordinator.control.samples.Samples`."""

    def add(self, node_id: str, host: HostSample, instances: Sequence[InstanceSample], now: float) -> None: ...


class Broker(Protocol):
    """`coordinator.logs.broker.LogBroker`."""

    def chunk(self, node_id: str, frame: LogChunk) -> None: ...

    def end(self, node_id: str, frame: LogEnd) -> None: ...

    def joined(self, node_id: str) -> None: ...

    def left(self, node_id: str) -> None: ...


class Socket(Protocol):
    """One accepted websocket. `send` waits while the other side does not read; OSError when it is gone."""

    async def receive(self) -> bytes | None:
        """The next message, None once the socket is closed."""

    async def send(self, data: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True)
class HubKeys:
    """The coordinator's own: what join tokens pin, and what secrets for it are sealed to."""

    signing: SigningKey
    sealing: SealingKey


@dataclass(frozen=True)
class HubParts:
    store: Store
    vault: Vault
    keys: HubKeys
    lease_book: Leases
    samples: Samples
    broker: Broker
    notary: Notary
    clock: Clock
