"""What this door's clients are shown, made from what the procedures answer. Only names and places of fields differ."""

from coordinator.doors.tenants.frames import DoneFrame, EventFrame, Frame, LineFrame, Place, StatusFrame
from coordinator.procedures.container_logs import FollowedEntry
from coordinator.procedures.container_views import ApprovalView, DeploymentView, EventView
from coordinator.procedures.deployment_events import DeploymentStep
from coordinator.procedures.environment import EnvironmentView
from coordinator.procedures.inputs import View
from coordinator.procedures.project import ContainerSummary, ProjectDetail, ProjectView
from coordinator.procedures.secret import SecretView
from coordinator.procedures.user import UserView
from coordinator.procedures.user_tokens import CreatedToken, TokenView


class TenantMembership(View, frozen=True):
    tenant_id: str
    role: str


class Me(View, frozen=True):
    id: str
    email: str
    name: str
    picture_url: str | None
    memberships: list[TenantMembership]
    created_at: str


class Project(View, frozen=True):
    id: str
    name: str
    description: str
    tenant_id: str
    status: str
    environment_count: int
    container_count: int
    created_at: str


class ProjectWithContents(Project, frozen=True):
    environments: list[EnvironmentView]
    containers: list[ContainerSummary]


class AccountToken(View, frozen=True):
    """`prefix`: what the token begins with, to recognise it by."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class NewAccountToken(AccountToken, frozen=True):
    """`token` is shown this once."""

    token: str


class DeployedRelease(View, frozen=True):
    id: str
    revision: int
    image: str


class Deployment(View, frozen=True):
    """`ref`: what people call it, unique in the tenant."""

    id: str
    ref: str
    number: int
    environment_id: str
    container_id: str
    kind: str
    status: str
    error: str
    note: str
    release: DeployedRelease
    previous_image: str | None
    events: list[EventView]
    approvals: list[ApprovalView]
    created_by: str
    created_at: str
    finished_at: str | None


class LogLine(View, frozen=True):
    seq: int
    ts: str
    line: str


class Secret(View, frozen=True):
    """`scope`: what it belongs to, `workspace` being the whole tenant. `value`: `***` when secret."""

    id: str
    key: str
    value: str
    secret: bool
    scope: str
    project_id: str | None
    environment_id: str | None
    version: int
    created_by: str
    created_at: str
    updated_at: str


def me(user: UserView) -> Me:
    return Me(
        id=user.id,
        email=user.email,
        name=user.name,
        picture_url=user.picture_url,
        memberships=[TenantMembership(tenant_id=one.organization_id, role=one.role) for one in user.memberships],
        created_at=user.created_at,
    )


def project(one: ProjectView) -> Project:
    return Project(
        id=one.id,
        name=one.name,
        description=one.description,
        tenant_id=one.organization_id,
        status=one.status,
        environment_count=one.environment_count,
        container_count=one.container_count,
        created_at=one.created_at,
    )


def project_with_contents(one: ProjectDetail) -> ProjectWithContents:
    shown = project(one)
    return ProjectWithContents(
        **{name: getattr(shown, name) for name in shown.__struct_fields__},
        environments=one.environments,
        containers=one.containers,
    )


def account_token(token: TokenView) -> AccountToken:
    return AccountToken(
        id=token.id,
        name=token.name,
        prefix=token.prefix,
        scopes=token.scopes,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )


def new_account_token(made: CreatedToken) -> NewAccountToken:
    shown = account_token(made)
    return NewAccountToken(**{name: getattr(shown, name) for name in shown.__struct_fields__}, token=made.token)


def deployment(one: DeploymentView) -> Deployment:
    return Deployment(
        id=one.id,
        ref=ref(one.number),
        number=one.number,
        environment_id=one.environment_id,
        container_id=one.container_id,
        kind=one.kind,
        status=one.status,
        error=one.error,
        note=one.note,
        release=DeployedRelease(id=one.release_id, revision=one.revision, image=one.image),
        previous_image=one.previous_image,
        events=one.events,
        approvals=one.approvals,
        created_by=one.created_by,
        created_at=one.created_at,
        finished_at=one.finished_at,
    )


def ref(number: int) -> str:
    return f"DEP-{number:04}"


def log_lines(one: DeploymentView, after: int) -> list[LogLine]:
    return [LogLine(seq=each.seq, ts=each.at, line=each.message) for each in one.events if each.seq > after]


def secret(one: SecretView) -> Secret:
    return Secret(
        id=one.id,
        key=one.key,
        value=one.value,
        secret=one.secret,
        scope="workspace" if one.scope == "organization" else one.scope,
        project_id=one.project_id,
        environment_id=one.environment_id,
        version=one.version,
        created_by=one.created_by,
        created_at=one.created_at,
        updated_at=one.updated_at,
    )


def step(one: DeploymentStep) -> tuple[Frame, Place]:
    match one.kind:
        case "event":
            return EventFrame(seq=one.seq, ts=one.at, line=one.message), one.cursor
        case "status":
            return StatusFrame(status=one.status), one.cursor
        case "end":
            return DoneFrame(status=one.status, error=one.error), one.cursor


def line(one: FollowedEntry) -> tuple[Frame, Place]:
    frame = LineFrame(
        cursor=one.cursor,
        ts=one.ts,
        instance_id=one.instance_id,
        node_id=one.node_id,
        stream=one.stream,
        line=one.line,
        dropped=one.dropped,
    )
    return frame, one.cursor
