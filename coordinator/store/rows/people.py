"""People: organisations, who belongs to them, and every way somebody proves who they are."""

from sqlalchemy import Index, LargeBinary, Text
from sqlmodel import Field, SQLModel


class Organization(SQLModel, table=True):
    """`sealed_key`: the organisation's data key, encrypted by the master key. `last_deployment`: the highest `number` given to one
    of its deployments; `deployed_today` of them count against the quota of `deploy_day`, a day of the Unix calendar. `removed_at`:
    nobody belongs to it any more; what is left of it goes with the last container on its nodes, and then the data key too."""

    __tablename__ = "organization"
    id: str = Field(primary_key=True)
    name: str
    description: str = ""
    sealed_key: bytes = Field(sa_type=LargeBinary)
    last_deployment: int = 0
    deploy_day: int = 0
    deployed_today: int = 0
    removed_at: float | None = Field(default=None, index=True)
    created_at: float


class User(SQLModel, table=True):
    """`proven`: somebody showed that the address is theirs, by a mailed token or at an OpenID provider. `password_hash`: argon2id,
    None for who only signs in elsewhere. `totp_secret`: encrypted by the master key; it counts from `totp_confirmed_at` on, and no
    time step up to `totp_last_step` opens anything again. `recovery_hashes`: JSON list, each used once."""

    __tablename__ = "account"  # "user" is reserved in PostgreSQL
    id: str = Field(primary_key=True)
    email: str = Field(unique=True)
    name: str
    picture_url: str | None = None
    proven: bool = False
    password_hash: str | None = None
    totp_secret: bytes | None = Field(default=None, sa_type=LargeBinary)
    totp_confirmed_at: float | None = None
    totp_last_step: int = 0
    recovery_hashes: str = Field(default="[]", sa_type=Text)
    created_at: float


class Membership(SQLModel, table=True):
    __tablename__ = "membership"
    organization_id: str = Field(primary_key=True, foreign_key="organization.id")
    user_id: str = Field(primary_key=True, foreign_key="account.id", index=True)
    role: str
    joined_at: float


class ApiToken(SQLModel, table=True):
    """`hash`: SHA-256 of the token; 256 random bits need no slow hash. `prefix` is what a person recognises it by. `scopes`: JSON
    list of read, deploy, admin. A personal token has a `user_id` and acts as that user; a service token has an `organization_id`
    instead and outlives whoever made it. `last_used_at` is written at most once a minute."""

    __tablename__ = "api_token"
    id: str = Field(primary_key=True)
    user_id: str | None = Field(default=None, foreign_key="account.id", index=True)
    organization_id: str | None = Field(default=None, foreign_key="organization.id", index=True)
    name: str
    hash: str = Field(unique=True)
    prefix: str
    scopes: str = '["admin"]'
    created_by: str
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None


class WebSession(SQLModel, table=True):
    """A browser that signed in. `hash`: SHA-256 of the cookie. `verified`: False between the password and the second factor."""

    __tablename__ = "web_session"
    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="account.id", index=True)
    hash: str = Field(unique=True)
    verified: bool = True
    address: str = ""
    user_agent: str = ""
    created_at: float
    last_used_at: float
    expires_at: float = Field(index=True)


class Identity(SQLModel, table=True):
    """An account as an OpenID provider knows it."""

    __tablename__ = "identity"
    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="account.id", index=True)
    created_at: float


class SignIn(SQLModel, table=True):
    """A sign-in under way at an OpenID provider. `hash`: SHA-256 of its `state`; used once. `verifier`: of PKCE."""

    __tablename__ = "sign_in"
    hash: str = Field(primary_key=True)
    nonce: str
    verifier: str
    return_to: str = ""
    invitation: str = ""
    expires_at: float = Field(index=True)


class Invitation(SQLModel, table=True):
    """`hash`: SHA-256 of its token. `status`: pending, accepted, rejected, revoked; expired follows from `expires_at`.
    `delivery`: what became of its mail: link (given to who invited), queued, sent, or why it failed."""

    __tablename__ = "invitation"
    __table_args__ = (Index("ix_invitation_organization", "organization_id", "created_at"),)
    id: str = Field(primary_key=True)
    organization_id: str = Field(foreign_key="organization.id")
    email: str = Field(index=True)
    role: str
    hash: str = Field(unique=True)
    status: str = "pending"
    delivery: str = ""
    invited_by: str
    created_at: float
    expires_at: float
    decided_at: float | None = None


class ClusterGrant(SQLModel, table=True):
    """What one user may do on one cluster, in place of what the role gives."""

    __tablename__ = "cluster_grant"
    cluster_id: str = Field(primary_key=True, foreign_key="cluster.id")
    user_id: str = Field(primary_key=True, foreign_key="account.id", index=True)
    permission: str
    granted_by: str
    created_at: float


class Attempts(SQLModel, table=True):
    """Failed sign-ins. `key`: the account or the address they came for or from, hashed."""

    __tablename__ = "attempts"
    key: str = Field(primary_key=True)
    failures: int
    last_at: float = Field(index=True)
