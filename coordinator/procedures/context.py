"""What a procedure is given: who calls, and the parts it may use. One value, made per call by a door."""

from dataclasses import dataclass, field
from typing import Any, Literal

from coordinator.control.leases import LeaseBook
from coordinator.control.samples import Samples
from coordinator.core.permissions import ClusterPermission, Role, TokenScope
from coordinator.logs.broker import LogBroker
from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.vault import Vault
from shared.kit.clock import Clock

Means = Literal["session", "token", "service", "jwt"]
"""How a caller proved who it is: a browser's cookie, a personal token, an organisation's service token, or a token of the
configured issuer."""


@dataclass(frozen=True)
class Caller:
    """`user_id`: the user, or the service token itself, which is nobody's. `credential_id`: the session, token or issuer's subject:
    what limits are counted by. `roles`: organisation id → role. `grants`: cluster id → what the user was given there, beside the
    role. `scope`: how much of that the credential carries."""

    user_id: str
    email: str
    roles: dict[str, Role]
    grants: dict[str, ClusterPermission] = field(default_factory=dict)
    means: Means = "token"
    credential_id: str = ""
    scope: TokenScope = "admin"


@dataclass(frozen=True)
class Services:
    """`url`: where agents reach this coordinator. `hub_key`: its public signing key, which join tokens pin."""

    store: Store
    vault: Vault
    notary: Notary
    clock: Clock
    leases: LeaseBook
    samples: Samples
    broker: LogBroker
    url: str
    hub_key: bytes


@dataclass(frozen=True)
class Scope:
    """Whose thing an input names. `noun` is the word for it in "… not found"; `record` saves the procedure a second read;
    `cluster_id` is the cluster whose permissions apply, None where no single one does."""

    organization_id: str
    noun: str
    record: Any = None
    cluster_id: str | None = None


@dataclass
class Context:
    """`record` and `cluster_id` are the scope's. `next_cursor` is set by list procedures and travels beside the answer."""

    services: Services
    caller: Caller | None
    address: str = ""
    record: Any = None
    cluster_id: str | None = None
    next_cursor: str | None = None

    @property
    def user(self) -> Caller:
        assert self.caller is not None, "only public procedures run without a caller"
        return self.caller

    def now(self) -> float:
        return self.services.clock.wall()
