"""What a procedure is given: who calls, and the parts it may use. One value, made per call by a door."""

from dataclasses import dataclass, field
from typing import Any, Literal

from coordinator.control.leases import LeaseBook
from coordinator.control.samples import Samples
from coordinator.core.permissions import ClusterPermission, Role, TokenScope
from coordinator.errors import Forbidden
from coordinator.logs.broker import LogBroker
from coordinator.logs.drains.board import DrainBoard
from coordinator.mail.postman import Postman
from coordinator.procedures.proofs import Proofs
from coordinator.procedures.remembered import Remembered
from coordinator.providers.logins import Logins
from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.projects import Guard
from coordinator.store.vault import Vault
from shared.kit.clock import Clock

Means = Literal["session", "token", "service", "jwt"]
"""How a caller proved who it is: a browser's cookie, a personal token, an organisation's service token, or a token of the
configured issuer."""


@dataclass(frozen=True)
class Caller:
    """`user_id`: the user, or the service token itself, which is nobody's. `credential_id`: the session, token or issuer's subject:
    what limits are counted by. `roles`: organisation id → role. `grants`: cluster id → what the user was given there, beside the
    role. `scope`: how much of that the credential carries. `account` False: nobody's, as a service token is, so that there is
    nothing of its own to show or change."""

    user_id: str
    email: str
    roles: dict[str, Role]
    grants: dict[str, ClusterPermission] = field(default_factory=dict)
    means: Means = "token"
    credential_id: str = ""
    scope: TokenScope = "admin"
    account: bool = True


@dataclass(frozen=True)
class Services:
    """`url`: where agents reach this coordinator. `hub_key`: its public signing key, which join tokens pin. `postman`:
    None where no mail server is configured. `deploys_per_day`: of one organisation; 0: no limit."""

    store: Store
    vault: Vault
    notary: Notary
    clock: Clock
    leases: LeaseBook
    samples: Samples
    broker: LogBroker
    url: str
    hub_key: bytes
    remembered: Remembered
    proofs: Proofs
    logins: Logins
    postman: Postman | None = None
    drains: DrainBoard = field(default_factory=DrainBoard)
    deploys_per_day: int = 0


@dataclass(frozen=True)
class Scope:
    """Whose thing an input names. `noun` is the word for it in "… not found"; `record` saves the procedure a second read;
    `cluster_id` is the cluster whose permissions apply, `guard` the environment's protection; None where no single one does."""

    organization_id: str
    noun: str
    record: Any = None
    cluster_id: str | None = None
    guard: Guard | None = None


NOWHERE = Scope("", "organization")
"""Of procedures that are about nobody's thing in particular."""


@dataclass(frozen=True)
class Bounds:
    """Where the thing that a call is about must be, because the address it came to says so; None: anywhere."""

    organization_id: str | None = None
    project_id: str | None = None
    environment_id: str | None = None


ANYWHERE = Bounds()


@dataclass
class Browser:
    """What a browser sent beside the call: `secret` is its session's. `keeps`: the secret of the session that it is to have after
    the call, empty for none; None leaves it as it is."""

    secret: str = ""
    agent: str = ""
    keeps: str | None = None


@dataclass
class Context:
    """`record` and `cluster_id` are the scope's, `role` what the caller is in its organisation, capped by the token's scope.
    `waits`: the deployment that is asked for needs somebody else's approval. `next_cursor` is set by list procedures and travels
    beside the answer. `last_event_id`: where a reader of a stream was, that comes back. `bounds`: what lies outside is not
    found."""

    services: Services
    caller: Caller | None
    address: str = ""
    scope: Scope = NOWHERE
    record: Any = None
    cluster_id: str | None = None
    role: Role | None = None
    waits: bool = False
    next_cursor: str | None = None
    last_event_id: str = ""
    browser: Browser = field(default_factory=Browser)
    bounds: Bounds = ANYWHERE

    @property
    def user(self) -> Caller:
        assert self.caller is not None, "only public procedures run without a caller"
        return self.caller

    @property
    def account(self) -> str:
        """The caller's own account. Raises Forbidden when it acts for nobody's."""
        if not self.user.account:
            raise Forbidden("this needs somebody's account: a service token, or an issuer's token alone, has none")
        return self.user.user_id

    def now(self) -> float:
        return self.services.clock.wall()
