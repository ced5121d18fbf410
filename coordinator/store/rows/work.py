"""Work: containers, their releases, the deployments between them, and the instances that run."""

from sqlalchemy import BigInteger, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


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
    """Immutable but for `image_digest`, which the first node that resolves the image fills in. `variables`: JSON list of env
    variables inherited from the environment, the project and the organisation, as they were when it was made; secret ones are
    concealed for this container."""

    __tablename__ = "release"
    __table_args__ = (UniqueConstraint("container_id", "revision"),)
    id: str = Field(primary_key=True)
    container_id: str = Field(foreign_key="container.id")
    revision: int
    template: str = Field(sa_type=Text)
    variables: str = Field(default="[]", sa_type=Text)
    spec_hash: str
    image: str
    image_digest: str = ""
    note: str = ""
    created_by: str
    created_at: float


class Deployment(SQLModel, table=True):
    """`kind`: create, deploy, rollback or restart. `state`: the rollout as `core.rollout` stores it. `events`: JSON list of
    {at, message}. `active` is True from its start until it ended; at most one is active per container. A `pending` one waits for an
    approval and is not active yet; `held`: it waits, or ended before it was approved, so it never touched what runs. `replicas`:
    what a deploy brings into force, as it was declared when that was asked for. `number` counts the organisation's deployments."""

    __tablename__ = "deployment"
    __table_args__ = (Index("ix_deployment_container", "container_id", "created_at"),)
    id: str = Field(primary_key=True)
    container_id: str = Field(foreign_key="container.id")
    number: int = 0
    kind: str
    release_id: str = Field(foreign_key="release.id")
    previous_release_id: str | None = None
    status: str
    active: bool = Field(default=True, index=True)
    held: bool = False
    replicas: int | None = None
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
    `failures`: instances of this slot and release that failed in a row right before it; its replacement's backoff counts on.
    `retold`: how often its node was told again what it knows, because the credentials of its registry changed."""

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
    retold: int = 0
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


class Approval(SQLModel, table=True):
    """Somebody's word on a deployment that waits for it. `status`: pending, approved, rejected, or withdrawn when the deployment
    was cancelled first."""

    __tablename__ = "approval"
    __table_args__ = (Index("ix_approval_environment", "environment_id", "created_at"),)
    id: str = Field(primary_key=True)
    deployment_id: str = Field(foreign_key="deployment.id", unique=True)
    environment_id: str = Field(foreign_key="environment.id")
    status: str = "pending"
    comment: str = ""
    requested_by: str
    decided_by: str | None = None
    created_at: float
    decided_at: float | None = None
