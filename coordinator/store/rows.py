"""The schema, as SQLModel tables. Rows never leave `store/`: repositories return records.

Conventions: ids are opaque texts, times are Unix seconds (REAL), structured values are JSON texts of `shared.spec` structs, because
they are read and written whole. Indexes are those that a loop's or a list's query needs, no others. A `version` column counts
every write of its row, so that a commit based on an old snapshot can be refused in its WHERE clause.
"""

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {  # the same names on both databases: a migration can only alter what has a name
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
_Counting = BigInteger().with_variant(Integer(), "sqlite")  # only an INTEGER PRIMARY KEY counts by itself in SQLite


class Organization(SQLModel, table=True):
    """`sealed_key`: the organisation's data key, encrypted by the master key."""

    __tablename__ = "organization"
    id: str = Field(primary_key=True)
    name: str
    description: str = ""
    sealed_key: bytes = Field(sa_type=LargeBinary)
    created_at: float


class User(SQLModel, table=True):
    __tablename__ = "account"  # "user" is reserved in PostgreSQL
    id: str = Field(primary_key=True)
    email: str = Field(unique=True)
    name: str
    picture_url: str | None = None
    created_at: float


class Membership(SQLModel, table=True):
    __tablename__ = "membership"
    organization_id: str = Field(primary_key=True, foreign_key="organization.id")
    user_id: str = Field(primary_key=True, foreign_key="account.id", index=True)
    role: str
    joined_at: float


class ApiToken(SQLModel, table=True):
    """`hash`: SHA-256 of the token; 256 random bits need no slow hash. `prefix` is what a person recognises it by."""

    __tablename__ = "api_token"
    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="account.id", index=True)
    name: str
    hash: str = Field(unique=True)
    prefix: str
    created_at: float
    expires_at: float | None = None


class Project(SQLModel, table=True):
    __tablename__ = "project"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    name: str
    description: str = ""
    created_at: float


class Environment(SQLModel, table=True):
    """`removing`: goes as soon as its last container has; no list shows it any more."""

    __tablename__ = "environment"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: str = Field(primary_key=True)
    project_id: str = Field(foreign_key="project.id")
    cluster_id: str | None = Field(default=None, foreign_key="cluster.id")
    name: str
    removing: bool = False
    created_at: float


class Cluster(SQLModel, table=True):
    __tablename__ = "cluster"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    name: str
    provider: str
    region: str
    orchestrator: str
    labels: str = Field(default="{}", sa_type=Text)
    settings: str = Field(default="{}", sa_type=Text)
    created_at: float


class Node(SQLModel, table=True):
    """`epoch` counts sessions, `assignment_seq` changes of the node's assignment set; both only grow. `facts` is a `NodeFacts`,
    `labels` those users set (they win over the agent's). `drain_reason` is a `Reason`: what keeps a drain from ending.
    `removing`: leaves its cluster once drained. `revoked_at`: has left it; its key opens no session any more."""

    __tablename__ = "node"
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    cluster_id: str | None = Field(default=None, foreign_key="cluster.id", index=True)
    name: str
    role: str
    signing_key: bytes = Field(sa_type=LargeBinary, unique=True)
    sealing_key: bytes = Field(sa_type=LargeBinary)
    facts: str = Field(default="{}", sa_type=Text)
    labels: str = Field(default="{}", sa_type=Text)
    availability: str = "active"
    drain_reason: str | None = Field(default=None, sa_type=Text)
    removing: bool = False
    lost: bool = False
    lost_at: float | None = None
    epoch: int = Field(default=0, sa_type=BigInteger)
    assignment_seq: int = Field(default=0, sa_type=BigInteger)
    enrolled_at: float
    last_seen_at: float | None = None
    revoked_at: float | None = None


class JoinToken(SQLModel, table=True):
    """`secret_hash`: SHA-256 of the token's secret. Kept a while after it is used up, so that a second use is told what it is."""

    __tablename__ = "join_token"
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    cluster_id: str | None = Field(default=None, foreign_key="cluster.id")
    role: str
    secret_hash: str
    uses_left: int
    expires_at: float
    created_by: str
    created_at: float


class Container(SQLModel, table=True):
    """`template` and `declared_replicas` are what the user wrote last (`generation` counts those writes); `replicas` and
    `target_release_id` are in force. `desired`: running, stopped or removed. `healthy_release_id`: the last release whose
    deployment succeeded, the only one an automatic rollback returns to. `waiting`: JSON object slot → `Reason`, kept by the
    orchestrator for slots that wait before their next instance."""

    __tablename__ = "container"
    __table_args__ = (UniqueConstraint("environment_id", "name"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    project_id: str = Field(foreign_key="project.id", index=True)
    environment_id: str = Field(foreign_key="environment.id")
    cluster_id: str = Field(foreign_key="cluster.id", index=True)
    name: str
    template: str = Field(sa_type=Text)
    declared_replicas: int
    replicas: int
    desired: str = "running"
    generation: int = 1
    version: int = 1
    last_revision: int = 0
    target_release_id: str | None = None
    healthy_release_id: str | None = None
    waiting: str = Field(default="{}", sa_type=Text)
    created_at: float
    last_deployed_at: float | None = None


class Release(SQLModel, table=True):
    """Immutable but for `image_digest`, which the first node that resolves the image fills in."""

    __tablename__ = "release"
    __table_args__ = (UniqueConstraint("container_id", "revision"),)
    id: str = Field(primary_key=True)
    container_id: str = Field(foreign_key="container.id")
    revision: int
    template: str = Field(sa_type=Text)
    spec_hash: str
    image: str
    image_digest: str = ""
    note: str = ""
    created_by: str
    created_at: float


class Deployment(SQLModel, table=True):
    """`kind`: create, deploy, rollback or restart. `state`: the rollout as `core.rollout` stores it. `events`: JSON list of
    {at, message}. `active` is True until it ended; at most one is active per container."""

    __tablename__ = "deployment"
    __table_args__ = (Index("ix_deployment_container", "container_id", "created_at"),)
    id: str = Field(primary_key=True)
    container_id: str = Field(foreign_key="container.id")
    kind: str
    release_id: str = Field(foreign_key="release.id")
    previous_release_id: str | None = None
    status: str
    active: bool = Field(default=True, index=True)
    state: str = Field(default="{}", sa_type=Text)
    events: str = Field(default="[]", sa_type=Text)
    error: str = ""
    note: str = ""
    version: int = 1
    created_by: str
    created_at: float
    finished_at: float | None = None


class Instance(SQLModel, table=True):
    """`goal` is desired; `phase`, `attempt`, `health`, `reason` … are observed. `lost` says the node is not heard of.

    `cpu_millis`, `memory_bytes`, `host_ports` (JSON list of [port, protocol]) repeat the release's demand, so that the scheduler
    sums a cluster up in one query. `prefer_node` and `avoid_nodes` (JSON list) are placement hints from whoever made it.
    `failures`: instances of this slot and release that failed in a row right before it; its replacement's backoff counts on."""

    __tablename__ = "instance"
    __table_args__ = (
        Index("ix_instance_container", "container_id"),
        Index("ix_instance_node", "node_id"),
        Index("ix_instance_cluster_phase", "cluster_id", "phase"),
    )
    id: str = Field(primary_key=True)
    organization_id: str
    container_id: str = Field(foreign_key="container.id")
    cluster_id: str
    release_id: str
    deployment_id: str | None = None
    revision: int
    slot: int
    node_id: str | None = None
    goal: str = "run"
    phase: int = 0
    attempt: int = 0
    health: str = "unknown"
    lost: bool = False
    reason: str | None = Field(default=None, sa_type=Text)
    ports: str = Field(default="[]", sa_type=Text)
    progress: str | None = None
    exit_code: int | None = None
    image_digest: str = ""
    remove_volumes: bool = False
    cpu_millis: int = 0
    memory_bytes: int = Field(default=0, sa_type=BigInteger)
    host_ports: str = "[]"
    prefer_node: str | None = None
    avoid_nodes: str = "[]"
    failures: int = 0
    created_at: float
    assigned_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float


class Volume(SQLModel, table=True):
    """A slot's named volume and the node its data is on: the slot's instances can run nowhere else."""

    __tablename__ = "volume"
    __table_args__ = (UniqueConstraint("container_id", "slot", "name"),)
    id: str = Field(primary_key=True)
    container_id: str = Field(foreign_key="container.id")
    slot: int
    name: str
    node_id: str
    size_gb: int | None = None
    created_at: float


class Change(SQLModel, table=True):
    """The feed: what changed, in commit order. Consumers keep the last `seq` they have seen."""

    __tablename__ = "change"
    __table_args__ = {"sqlite_autoincrement": True}
    seq: int | None = Field(default=None, primary_key=True, sa_type=_Counting)
    kind: str
    key: str
    at: float


class Audit(SQLModel, table=True):
    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_organization", "organization_id", "at"),)
    id: str = Field(primary_key=True)
    organization_id: str | None = None
    at: float
    actor: str
    action: str
    resource: str
    detail: str = Field(default="{}", sa_type=Text)
    address: str = ""


class Setting(SQLModel, table=True):
    """What all replicas share: the coordinator's own keys, encrypted by the master key."""

    __tablename__ = "setting"
    key: str = Field(primary_key=True)
    value: bytes = Field(sa_type=LargeBinary)
