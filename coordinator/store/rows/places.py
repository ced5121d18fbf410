"""Places: projects and their environments, clusters and their nodes, and what is kept with a place for what runs there."""

from sqlalchemy import BigInteger, Index, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


class Project(SQLModel, table=True):
    __tablename__ = "project"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    name: str
    description: str = ""
    created_at: float


class Environment(SQLModel, table=True):
    """`removing`: goes as soon as its last container has; no list shows it any more. `protection`: none, restricted or locked.
    `reviewers`: JSON list of user ids."""

    __tablename__ = "environment"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: str = Field(primary_key=True)
    project_id: str = Field(foreign_key="project.id")
    cluster_id: str | None = Field(default=None, foreign_key="cluster.id")
    name: str
    protection: str = "none"
    reviewers: str = "[]"
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


class Variable(SQLModel, table=True):
    """A variable every container of its scope gets: of the organisation, of one project, or of one environment (then `project_id`
    is set too). `value` is concealed when `secret`. `place`: the most special of the three ids, so that a key is unique there."""

    __tablename__ = "variable"
    __table_args__ = (UniqueConstraint("place", "key"), Index("ix_variable_organization", "organization_id"))
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    project_id: str | None = Field(default=None, foreign_key="project.id", index=True)
    environment_id: str | None = Field(default=None, foreign_key="environment.id", index=True)
    place: str
    key: str
    value: str = Field(sa_type=Text)
    secret: bool
    version: int = 1
    created_by: str
    created_at: float
    updated_at: float


class VariableVersion(SQLModel, table=True):
    """What a variable was, the present value included."""

    __tablename__ = "variable_version"
    variable_id: str = Field(primary_key=True, foreign_key="variable.id")
    version: int = Field(primary_key=True)
    value: str = Field(sa_type=Text)
    secret: bool
    created_by: str
    created_at: float


class Registry(SQLModel, table=True):
    """`server`: host[:port] that image names begin with; `insecure`: it speaks HTTP. `credentials`: a concealed JSON object, by
    `type`. `token`: what they were last exchanged for, where nodes log in with that (concealed); the next exchange is due at
    `refresh_at`. `checked_at` and `check_error` (empty: logged in) are of the last log-in or exchange."""

    __tablename__ = "registry"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    name: str
    type: str
    server: str
    insecure: bool = False
    credentials: str | None = Field(default=None, sa_type=Text)
    token: str | None = Field(default=None, sa_type=Text)
    refresh_at: float | None = None
    version: int = 1
    checked_at: float | None = None
    check_error: str = ""
    created_by: str
    created_at: float
    updated_at: float
