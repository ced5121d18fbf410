"""Variables and secrets of an organisation, a project or an environment, which the containers there inherit: see `inheriting.py`.

A secret value comes out in two ways only: to the nodes that run what needs it, and by `secret.reveal`, which has a right of its own
and leaves an entry in the audit log.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, NotFound
from coordinator.procedures import keeping, paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.keeping import Place
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import projects, variables
from coordinator.store.database import Tx
from coordinator.store.variables import VariableRecord, VersionRecord
from coordinator.store.vault import variable_context
from shared.kit.clock import iso
from shared.spec.container import MASK, MAX_ENV_BYTES, EnvVar, Part

Key = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$(?!\n)")]
Value = Annotated[str, Meta(max_length=MAX_ENV_BYTES)]


class SecretId(Part, frozen=True):
    secret_id: Id


class ListSecrets(Page, frozen=True, kw_only=True):
    """`projectId`: only the project's own and those of its environments. `environmentId`: only that environment's."""

    organization_id: Id
    project_id: Id | None = None
    environment_id: Id | None = None


class CreateSecret(Part, frozen=True, kw_only=True):
    """Exactly one of `organizationId`, `projectId` and `environmentId` says where it belongs. `secret`: the value rests encrypted
    and reads back as `***`."""

    organization_id: Id | None = None
    project_id: Id | None = None
    environment_id: Id | None = None
    key: Key
    value: Value
    secret: bool = True

    def __repr__(self) -> str:
        return f"CreateSecret({self.key!r})"


class UpdateSecret(Part, frozen=True, kw_only=True):
    """`***` as the value of a secret keeps what is stored. A plain variable becomes a secret as it is; the other way needs a
    value."""

    secret_id: Id
    value: Value | UnsetType = UNSET
    secret: bool | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"UpdateSecret({self.secret_id!r})"


class RevealSecret(Part, frozen=True):
    """`version`: an earlier one of those that are kept; the present one when absent."""

    secret_id: Id
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class SecretView(View, frozen=True):
    """`scope`: what it belongs to; of the ids, those that lead there are set. `value`: `***` when secret."""

    id: str
    key: str
    value: str
    secret: bool
    scope: Literal["organization", "project", "environment"]
    organization_id: str
    project_id: str | None
    environment_id: str | None
    version: int
    created_by: str
    created_at: str
    updated_at: str


class SecretVersionView(View, frozen=True):
    version: int
    value: str
    secret: bool
    created_by: str
    created_at: str


class RevealedSecret(View, frozen=True):
    id: str
    key: str
    value: str
    version: int

    def __repr__(self) -> str:
        return f"RevealedSecret({self.key!r})"


async def _place(context: Context, data: CreateSecret) -> Scope:
    if sum(one is not None for one in (data.organization_id, data.project_id, data.environment_id)) != 1:
        raise BadRequest("organizationId: give exactly one of organizationId, projectId and environmentId")
    if data.environment_id is not None:
        return await scopes.environment(context, _Named(environment_id=data.environment_id))
    if data.project_id is not None:
        return await scopes.project(context, _Named(project_id=data.project_id))
    return await scopes.organization(context, _Named(organization_id=data.organization_id or ""))


class _Named(Part, frozen=True, kw_only=True):
    """The one id that a resolver of `scopes` looks at."""

    organization_id: str = ""
    project_id: str = ""
    environment_id: str = ""


async def _secret(context: Context, data: SecretId | UpdateSecret | RevealSecret) -> Scope:
    async with context.services.store.read() as conn:
        record = await variables.get(conn, data.secret_id)
    if record is None:
        raise NotFound("secret not found")
    return Scope(record.organization_id, "secret", record)


@procedure("secret.all", "GET", "viewer", scopes.organization, rest="/secrets")
async def list_secrets(context: Context, data: ListSecrets) -> list[SecretView]:
    """An organisation's variables and secrets, wherever in it they belong. Secret values read `***`."""
    async with context.services.store.read() as conn:
        found = await variables.of_organization(
            conn,
            data.organization_id,
            project_id=data.project_id,
            environment_id=data.environment_id,
            after=data.cursor or "",
            limit=paging.fetch(data),
        )
    return [view(record) for record in paging.cut(context, data, found)]


@procedure("secret.create", "POST", "admin", _place, created=True, rest="/secrets")
async def create(context: Context, data: CreateSecret) -> SecretView:
    """A new variable or secret. What runs gets it with its next deploy."""

    async def unit(tx: Tx) -> VariableRecord:
        place = await _home(tx.conn, data)
        record = await keeping.add(tx, context, place, EnvVar(key=data.key, value=data.value, secret=data.secret))
        await note(tx, context, "secret.create", record.id, place.organization_id, key=data.key, place=place.id)
        return record

    return view(await context.services.store.write(unit))


@procedure("secret.update", "PATCH", "admin", _secret, rest="/secrets/{secretId}")
async def update(context: Context, data: UpdateSecret) -> SecretView:
    """Give it another value, as its next version. What runs gets it with its next deploy."""

    async def unit(tx: Tx) -> VariableRecord:
        record = await _require(tx.conn, data.secret_id)
        secret = record.secret if data.secret is UNSET else data.secret
        value = None if data.value is UNSET else data.value
        written = await keeping.rewrite(tx, context, record, value, secret=secret)
        await note(
            tx, context, "secret.update", record.id, record.organization_id, key=record.key, version=written.version
        )
        return written

    return view(await context.services.store.write(unit))


@procedure("secret.remove", "DELETE", "admin", _secret, rest="/secrets/{secretId}")
async def remove(context: Context, data: SecretId) -> Nothing:
    """Remove it with its versions. What runs keeps what its release was made with until its next deploy."""

    async def unit(tx: Tx) -> None:
        record = await _require(tx.conn, data.secret_id)
        await variables.remove(tx, record.id)
        await note(tx, context, "secret.remove", record.id, record.organization_id, key=record.key)

    await context.services.store.write(unit)
    return Nothing()


@procedure("secret.reveal", "POST", "admin", _secret, rest="/secrets/{secretId}/reveal", fresh=True)
async def reveal(context: Context, data: RevealSecret) -> RevealedSecret:
    """The value in the clear, for an admin. Leaves an entry with the version in the audit log, whose ever it is."""

    async def unit(tx: Tx) -> RevealedSecret:
        record = await _require(tx.conn, data.secret_id)
        shown = await _version(tx.conn, record, data.version)
        value = shown.value
        if shown.secret:
            compartment = await keeping.compartment_of(tx.conn, context, record.organization_id)
            value = compartment.reveal(value, variable_context(record.id))
        await note(
            tx, context, "secret.reveal", record.id, record.organization_id, key=record.key, version=shown.version
        )
        return RevealedSecret(id=record.id, key=record.key, value=value, version=shown.version)

    return await context.services.store.write(unit)


@procedure("secret.versions", "GET", "viewer", _secret, rest="/secrets/{secretId}/versions")
async def versions(context: Context, data: SecretId) -> list[SecretVersionView]:
    """Its last 20 versions, newest first, the present one included."""
    async with context.services.store.read() as conn:
        found = await variables.history(conn, data.secret_id)
    return [
        SecretVersionView(
            version=one.version,
            value=MASK if one.secret else one.value,
            secret=one.secret,
            created_by=one.created_by,
            created_at=iso(one.created_at),
        )
        for one in found
    ]


def view(record: VariableRecord) -> SecretView:
    return SecretView(
        id=record.id,
        key=record.key,
        value=MASK if record.secret else record.value,
        secret=record.secret,
        scope="environment" if record.environment_id else "project" if record.project_id else "organization",
        organization_id=record.organization_id,
        project_id=record.project_id,
        environment_id=record.environment_id,
        version=record.version,
        created_by=record.created_by,
        created_at=iso(record.created_at),
        updated_at=iso(record.updated_at),
    )


async def _require(conn: AsyncConnection, secret_id: str) -> VariableRecord:
    record = await variables.get(conn, secret_id)
    if record is None:
        raise NotFound("secret not found")
    return record


async def _version(conn: AsyncConnection, record: VariableRecord, version: int | None) -> VersionRecord:
    wanted = version or record.version
    for one in await variables.history(conn, record.id):
        if one.version == wanted:
            return one
    raise NotFound("secret version not found")


async def _home(conn: AsyncConnection, data: CreateSecret) -> Place:
    """The place as it is in this transaction."""
    project_id = data.project_id
    if data.environment_id is not None:
        environment = await projects.get_environment(conn, data.environment_id)
        if environment is None or environment.removing:
            raise NotFound("environment not found")
        project_id = environment.project_id
    if project_id is None:
        return Place(data.organization_id or "")
    project = await projects.get(conn, project_id)
    if project is None:
        raise NotFound("project not found")
    return Place(project.organization_id, project.id, data.environment_id)
