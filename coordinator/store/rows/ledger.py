"""The ledger: what changed, who did it, what was answered, and what all replicas share."""

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

_Counting = BigInteger().with_variant(Integer(), "sqlite")  # only an INTEGER PRIMARY KEY counts by itself in SQLite


class Change(SQLModel, table=True):
    """The feed: what changed, in commit order. Consumers keep the last `seq` they have seen."""

    __tablename__ = "change"
    __table_args__ = {"sqlite_autoincrement": True}
    seq: int | None = Field(default=None, primary_key=True, sa_type=_Counting)
    kind: str
    key: str
    at: float


class Audit(SQLModel, table=True):
    """Append-only. `chain`: the organisation's id, or `system`; `sequence` counts within it from 1 without a gap. `hash` covers
    every other column and the hash of the entry before; `signature` is the coordinator's over it. `before` and `after`: digests of
    the thing, empty where it was not there."""

    __tablename__ = "audit"
    __table_args__ = (UniqueConstraint("chain", "sequence"), Index("ix_audit_resource", "chain", "resource"))
    id: str = Field(primary_key=True)
    chain: str
    sequence: int = Field(sa_type=BigInteger)
    at: float
    actor: str
    action: str
    resource_type: str
    resource: str
    before: str = ""
    after: str = ""
    detail: str = Field(default="{}", sa_type=Text)
    address: str = ""
    hash: bytes = Field(sa_type=LargeBinary)
    signature: bytes = Field(sa_type=LargeBinary)


class AuditHead(SQLModel, table=True):
    """The last entry of a chain."""

    __tablename__ = "audit_head"
    chain: str = Field(primary_key=True)
    sequence: int = Field(sa_type=BigInteger)
    hash: bytes = Field(sa_type=LargeBinary)


class AuditCheckpoint(SQLModel, table=True):
    """Where a chain begins after its entries up to `sequence` were removed: the signed hash the next one must name."""

    __tablename__ = "audit_checkpoint"
    chain: str = Field(primary_key=True)
    sequence: int = Field(sa_type=BigInteger)
    hash: bytes = Field(sa_type=LargeBinary)
    at: float
    signature: bytes = Field(sa_type=LargeBinary)


class RateWindow(SQLModel, table=True):
    """How many calls a caller was given in a window, by all replicas together. `key`: caller and kind of call."""

    __tablename__ = "rate_window"
    key: str = Field(primary_key=True)
    window: int = Field(sa_type=BigInteger)
    used: int


class Repeat(SQLModel, table=True):
    """The answer to a request with an `Idempotency-Key`. `key`: SHA-256 over caller and key. `digest`: of procedure and input.
    `status` None: carried out, or under way, and the answer is not known (yet)."""

    __tablename__ = "repeat"
    key: str = Field(primary_key=True)
    digest: str
    status: int | None = None
    headers: str = Field(default="{}", sa_type=Text)
    body: bytes = Field(default=b"", sa_type=LargeBinary)
    created_at: float = Field(index=True)


class LogDrain(SQLModel, table=True):
    """Where an organisation's log lines go besides its readers. `config`: JSON by `type`, without secrets; `secret`:
    concealed JSON."""

    __tablename__ = "log_drain"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    name: str
    type: str
    config: str = Field(default="{}", sa_type=Text)
    secret: str | None = Field(default=None, sa_type=Text)
    enabled: bool = True
    created_by: str
    created_at: float
    updated_at: float


class Setting(SQLModel, table=True):
    """What all replicas share: the coordinator's own keys, encrypted by the master key."""

    __tablename__ = "setting"
    key: str = Field(primary_key=True)
    value: bytes = Field(sa_type=LargeBinary)
