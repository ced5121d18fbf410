"""Registries: where images come from, with what nodes log in there. Credentials go in, are used, and never come out again.

They are no part of a release: a node is told those of the moment, so a password that was rotated here counts for the next pull
without a deploy.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, Conflict, NotFound
from coordinator.procedures import keeping, paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import write_named
from coordinator.providers import ecr
from coordinator.store import organizations, registries
from coordinator.store.database import Tx
from coordinator.store.registries import Credentials, RegistryRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import MAX_PASSWORD, Part
from shared.spec.image import DOCKER_HUB, canonical

Type = Literal["GHCR", "Docker", "ECR", "ACR", "GCR", "GAR", "Quay", "Custom", "Public"]
SERVERS: dict[str, str] = {
    "GHCR": "ghcr.io",
    "Docker": DOCKER_HUB,
    "GCR": "gcr.io",
    "Quay": "quay.io",
    "Public": DOCKER_HUB,
}
"""Where a type is when nobody says otherwise; the others have no usual place."""
MAX_REGISTRIES = 200
_TAKEN = "the organisation already has a registry"
_GOOGLE = ("GCR", "GAR")

RegistryName = Annotated[str, Meta(min_length=1, max_length=64)]
Server = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$(?!\n)",
        description="Host, or host:port, as the names of its images begin.",
    ),
]
_Word = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[!-~]+$(?!\n)")]
_Password = Annotated[str, Meta(min_length=1, max_length=MAX_PASSWORD)]


class RegistryKeys(Part, frozen=True, kw_only=True):
    """By type. ECR: `accessKeyId`, `secretAccessKey`, and `region` where the server's name does not say it. GCR and GAR: `jsonKey`,
    the key file of a service account, or a user name and a password. All others: `username` and `password`."""

    username: Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^:\x00-\x1f\x7f]+$(?!\n)")] | None = None
    password: _Password | None = None
    json_key: Annotated[str, Meta(min_length=2, max_length=MAX_PASSWORD)] | None = None
    access_key_id: _Word | None = None
    secret_access_key: _Word | None = None
    region: Annotated[str, Meta(max_length=32, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]+$(?!\n)")] | None = None

    def __repr__(self) -> str:
        return "RegistryKeys(…)"


class RegistryId(Part, frozen=True):
    registry_id: Id


class ListRegistries(Page, frozen=True, kw_only=True):
    organization_id: Id


class CreateRegistry(Part, frozen=True, kw_only=True):
    """`server`: the type's usual one when absent; ECR, ACR, GAR and Custom have none. `insecure`: it speaks HTTP, and the nodes'
    engines are set up for that; passwords travel readable. The type Public takes no credentials."""

    organization_id: Id
    name: RegistryName
    type: Type
    server: Server | None = None
    insecure: bool = False
    credentials: RegistryKeys | None = None


class UpdateRegistry(Part, frozen=True, kw_only=True):
    """`credentials` are replaced whole. Nodes are told at once; nothing restarts."""

    registry_id: Id
    name: RegistryName | UnsetType = UNSET
    server: Server | UnsetType = UNSET
    insecure: bool | UnsetType = UNSET
    credentials: RegistryKeys | UnsetType = UNSET


class RegistryView(View, frozen=True):
    """`checkedAt` and `checkError` (empty: it worked): of the last log-in, null before any."""

    id: str
    organization_id: str
    name: str
    type: Type
    server: str
    insecure: bool
    has_credentials: bool
    checked_at: str | None
    check_error: str
    created_by: str
    created_at: str
    updated_at: str


class RegistryCheck(View, frozen=True):
    """`error`: the exact reason where `ok` is false."""

    ok: bool
    error: str
    checked_at: str


async def _registry(context: Context, data: RegistryId | UpdateRegistry) -> Scope:
    async with context.services.store.read() as conn:
        record = await registries.get(conn, data.registry_id)
    if record is None:
        raise NotFound("registry not found")
    return Scope(record.organization_id, "registry", record)


@procedure("registry.all", "GET", "developer", scopes.organization, rest="/registries")
async def list_registries(context: Context, data: ListRegistries) -> list[RegistryView]:
    """An organisation's registries, without their credentials."""
    async with context.services.store.read() as conn:
        found = await registries.of_organization(
            conn, data.organization_id, after=data.cursor or "", limit=paging.fetch(data)
        )
    return [view(record) for record in paging.cut(context, data, found)]


@procedure("registry.one", "GET", "developer", _registry, rest="/registries/{registryId}")
async def one(context: Context, data: RegistryId) -> RegistryView:
    """One registry, without its credentials."""
    return view(context.record)


@procedure("registry.create", "POST", "developer", scopes.organization, created=True, rest="/registries")
async def create(context: Context, data: CreateRegistry) -> RegistryView:
    """A new registry. Containers whose images are there, and that have no credentials of their own, pull with it from now on."""
    server = _server(data.type, data.server)
    keys = _credentials(data.type, server, data.credentials)
    registry_id = new_id("reg")

    async def unit(tx: Tx) -> RegistryRecord:
        if not await organizations.hold(tx, data.organization_id):
            raise NotFound("organization not found")
        if len(await registries.of_organization(tx.conn, data.organization_id)) >= MAX_REGISTRIES:
            raise Conflict(f"name: the organisation has {MAX_REGISTRIES} registries already")
        record = RegistryRecord(
            id=registry_id,
            organization_id=data.organization_id,
            name=data.name,
            type=data.type,
            server=server,
            insecure=data.insecure,
            credentials=await _concealed(tx.conn, context, data.organization_id, registry_id, keys),
            created_by=context.user.user_id,
            created_at=tx.now,
            updated_at=tx.now,
        )
        await registries.insert(tx, record)
        await registries.resend(tx, record)
        await note(tx, context, "registry.create", record.id, record.organization_id, name=record.name, server=server)
        return record

    return view(await write_named(context, unit, _TAKEN, data.name))


@procedure("registry.update", "PATCH", "developer", _registry, rest="/registries/{registryId}")
async def update(context: Context, data: UpdateRegistry) -> RegistryView:
    """Change a registry. The nodes that pull from it are told of new credentials at once; nothing is deployed or restarted."""

    async def unit(tx: Tx) -> RegistryRecord:
        record = await _require(tx.conn, data.registry_id)
        changes = await _changes(tx, context, record, data)
        if not changes:
            return record
        await registries.change(tx, record.id, **changes, updated_at=tx.now)
        changed = msgspec.structs.replace(record, **changes, updated_at=tx.now)
        if changed.version != record.version:
            await registries.resend(tx, changed, record.server)
        fields = sorted(changes.keys() & {"name", "server", "insecure", "credentials"})
        await note(tx, context, "registry.update", record.id, record.organization_id, fields=fields)
        return changed

    return view(await write_named(context, unit, _TAKEN, data.name))


@procedure("registry.remove", "DELETE", "developer", _registry, rest="/registries/{registryId}")
async def remove(context: Context, data: RegistryId) -> Nothing:
    """Remove a registry with its credentials. What runs goes on running; the next pull goes without them."""

    async def unit(tx: Tx) -> None:
        record = await _require(tx.conn, data.registry_id)
        await registries.remove(tx, record.id)
        await registries.resend(tx, record)
        await note(tx, context, "registry.remove", record.id, record.organization_id, name=record.name)

    await context.services.store.write(unit)
    return Nothing()


@procedure("registry.test", "POST", "developer", _registry, rest="/registries/{registryId}/test")
async def test(context: Context, data: RegistryId) -> RegistryCheck:
    """Log in to the registry from the coordinator, as a node would, and say what came of it. Link-local addresses are not asked."""
    record: RegistryRecord = context.record
    keys = Credentials()
    if record.credentials is not None:
        async with context.services.store.read() as conn:
            compartment = await keeping.compartment_of(conn, context, record.organization_id)
        keys = registries.opened(record.credentials, compartment, record.id)
    error = await context.services.logins.problem(record, keys)

    async def unit(tx: Tx) -> float:
        await registries.change(tx, record.id, expected=record.version, checked_at=tx.now, check_error=error)
        await note(tx, context, "registry.test", record.id, record.organization_id, ok=not error)
        return tx.now

    checked_at = await context.services.store.write(unit)
    return RegistryCheck(ok=not error, error=error, checked_at=iso(checked_at))


def view(record: RegistryRecord) -> RegistryView:
    return RegistryView(
        id=record.id,
        organization_id=record.organization_id,
        name=record.name,
        type=record.type,  # type: ignore[arg-type]  # nothing else was ever let in
        server=record.server,
        insecure=record.insecure,
        has_credentials=record.credentials is not None,
        checked_at=None if record.checked_at is None else iso(record.checked_at),
        check_error=record.check_error,
        created_by=record.created_by,
        created_at=iso(record.created_at),
        updated_at=iso(record.updated_at),
    )


async def _require(conn: AsyncConnection, registry_id: str) -> RegistryRecord:
    record = await registries.get(conn, registry_id)
    if record is None:
        raise NotFound("registry not found")
    return record


async def _changes(tx: Tx, context: Context, record: RegistryRecord, data: UpdateRegistry) -> dict[str, Any]:
    """Columns. With what nodes log in to changes the version, and the last check says nothing any more."""
    changes: dict[str, Any] = {}
    if data.name is not UNSET and data.name != record.name:
        changes["name"] = data.name
    if data.insecure is not UNSET and data.insecure != record.insecure:
        changes |= {"insecure": data.insecure, "checked_at": None, "check_error": ""}
    server = record.server if data.server is UNSET else _server(record.type, data.server)
    if server != record.server:
        changes |= {"server": server, "token": None}
    exposed = "server" in changes or changes.get("insecure") is True
    if exposed and record.credentials is not None and data.credentials is UNSET:
        # Who may change the address is not thereby shown what is said there.
        raise BadRequest("credentials: are to be given again for another server, or for one without TLS")
    if data.credentials is not UNSET:
        keys = _credentials(record.type, server, data.credentials)
        changes["credentials"] = await _concealed(tx.conn, context, record.organization_id, record.id, keys)
    if {"server", "credentials"} & changes.keys():
        changes |= {"version": record.version + 1, "refresh_at": None, "checked_at": None, "check_error": ""}
    return changes


async def _concealed(
    conn: AsyncConnection, context: Context, organization_id: str, registry_id: str, keys: Credentials | None
) -> str | None:
    if keys is None:
        return None
    compartment = await keeping.compartment_of(conn, context, organization_id)
    return registries.concealed(keys, compartment, registry_id)


def _server(kind: str, given: str | None) -> str:
    server = given or SERVERS.get(kind)
    if server is None:
        raise BadRequest(f"server: is required for the type {kind}")
    _, colon, port = server.partition(":")
    if colon and not 1 <= int(port) <= 65535:
        raise BadRequest("server: its port must be between 1 and 65535")
    if kind == "ECR" and not ecr.SERVER.fullmatch(server.lower()):
        raise BadRequest("server: must read <account>.dkr.ecr.<region>.amazonaws.com for the type ECR")
    return canonical(server)


def _credentials(kind: str, server: str, given: RegistryKeys | None) -> Credentials | None:
    """Raises BadRequest naming what is missing, or is no business of this type."""
    if kind == "Public":
        if given is not None:
            raise BadRequest("credentials: the type Public takes none")
        return None
    if given is None:
        raise BadRequest(f"credentials: are required for the type {kind}")
    if kind == "ECR":
        _only(kind, given, "access_key_id", "secret_access_key", "region")
        region = given.region or _region(server)
        return Credentials(
            access_key_id=given.access_key_id or "", secret_access_key=given.secret_access_key or "", region=region
        )
    if kind in _GOOGLE and given.json_key is not None:
        _only(kind, given, "json_key")
        return Credentials(username="_json_key", password=_json_key(given.json_key))
    _only(kind, given, "username", "password")
    return Credentials(username=given.username or "", password=given.password or "")


def _only(kind: str, given: RegistryKeys, *names: str) -> None:
    for item in msgspec.structs.fields(RegistryKeys):
        present = getattr(given, item.name) is not None
        if present and item.name not in names:
            raise BadRequest(f"credentials.{item.encode_name}: is not for the type {kind}")
        if not present and item.name in names and item.name != "region":
            raise BadRequest(f"credentials.{item.encode_name}: is required")
    if given.password is not None and len(given.password.encode()) > MAX_PASSWORD:
        raise BadRequest(f"credentials.password: may not exceed {MAX_PASSWORD} bytes")


def _region(server: str) -> str:
    match = ecr.SERVER.fullmatch(server)
    assert match is not None, "checked before"
    return match["region"]


def _json_key(text: str) -> str:
    """As one line, which is how engines send it; its meaning is for Google to judge."""
    try:
        key = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadRequest("credentials.jsonKey: is not valid JSON") from error
    if not isinstance(key, dict):
        raise BadRequest("credentials.jsonKey: must be a JSON object")
    return msgspec.json.encode(key).decode()
