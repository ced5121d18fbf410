"""Registries: where an organisation's images come from, and what nodes log in there with.

A release does not freeze credentials: they are looked up whenever a node is told of an instance. `resend` is what makes that a
promise: it counts every instance they apply to as one that its node must be told of again. Nothing else about it changes, so
nothing restarts.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import nodes
from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import instance, registry, release
from coordinator.store.vault import Compartment, registry_context
from coordinator.store.writer import Tx
from shared.spec.container import Template
from shared.spec.image import canonical, registry_of
from shared.spec.instance import TERMINAL


class RegistryRecord(Record, frozen=True, kw_only=True):
    """`credentials` and `token` are concealed."""

    id: str
    organization_id: str
    name: str
    type: str
    server: str
    insecure: bool = False
    credentials: str | None = None
    token: str | None = None
    refresh_at: float | None = None
    version: int = 1
    checked_at: float | None = None
    check_error: str = ""
    created_by: str
    created_at: float
    updated_at: float


class Credentials(msgspec.Struct, frozen=True, omit_defaults=True):
    """The plaintext of a registry's credentials. An access key is exchanged for a password: that is `RegistryRecord.token`."""

    username: str = ""
    password: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    region: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


class Token(msgspec.Struct, frozen=True):
    """What an access key was exchanged for. `expires_at`: Unix seconds."""

    username: str
    password: str
    expires_at: float

    def __repr__(self) -> str:
        return "Token(…)"


class NotExchanged(Exception):
    """The exact reason, as a sentence without secrets."""


registries = Mapper(RegistryRecord, registry)
_c = registry.c
_by_id = registries.by(_c.id, order=_c.id)
_of_organization = registries.by(_c.organization_id, order=_c.id)
_template = msgspec.json.Decoder(Template)
_CHUNK = 500


async def insert(tx: Tx, record: RegistryRecord) -> None:
    """IntegrityError when the organisation has one of that name."""
    await registries.insert(tx.conn, [record])
    tx.changed("registry", record.id)


async def get(conn: AsyncConnection, registry_id: str) -> RegistryRecord | None:
    return await _by_id.one(conn, registry_id)


async def of_organization(
    conn: AsyncConnection, organization_id: str, *, after: str = "", limit: int = 200
) -> list[RegistryRecord]:
    """By id, that is by age; `after` is the last id of the page before."""
    statement = registries.select(_c.organization_id == organization_id, _c.id > after)
    return await registries.many(conn, statement.order_by(_c.id).limit(limit))


async def of_organizations(conn: AsyncConnection, organization_ids: Iterable[str]) -> dict[str, list[RegistryRecord]]:
    """Organisation id → its registries, oldest first."""
    found: dict[str, list[RegistryRecord]] = {}
    for record in await _of_organization.many(conn, organization_ids):
        found.setdefault(record.organization_id, []).append(record)
    return found


async def exchanged(conn: AsyncConnection) -> list[RegistryRecord]:
    """Those that nodes log in to with a token."""
    return await registries.many(conn, registries.select(_c.type == EXCHANGED).order_by(_c.id))


async def change(tx: Tx, registry_id: str, *, expected: int | None = None, **changes: Any) -> bool:
    """With the `expected` version, only one whose credentials are still those: False means that they were changed since."""
    statement = update(registry).where(_c.id == registry_id)
    if expected is not None:
        statement = statement.where(_c.version == expected)
    done = (await tx.conn.execute(statement.values(**changes))).rowcount == 1
    if done:
        tx.changed("registry", registry_id)
    return done


async def remove(tx: Tx, registry_id: str) -> bool:
    done = (await tx.conn.execute(delete(registry).where(_c.id == registry_id))).rowcount == 1
    if done:
        tx.changed("registry", registry_id)
    return done


def applying(template: Template, known: Iterable[RegistryRecord]) -> RegistryRecord | None:
    """The registry whose credentials pull this template's image, `known` being its organisation's, oldest first: the one it names,
    else the first of the image's own server. Credentials of its own come before any. Nothing is ever sent to another server than
    that of the registry, whatever the template names."""
    if template.credentials is not None:
        return None
    host = canonical(registry_of(template.image))
    here = [record for record in known if canonical(record.server) == host]
    if template.registry_id is not None:
        return next((record for record in here if record.id == template.registry_id), None)
    return next((record for record in here if record.type != PUBLIC), None)


def concealed(value: Credentials, compartment: Compartment, registry_id: str) -> str:
    return compartment.conceal(msgspec.json.encode(value).decode(), registry_context(registry_id))


def opened(text: str, compartment: Compartment, registry_id: str) -> Credentials:
    """Raises SealError."""
    return msgspec.json.decode(compartment.reveal(text, registry_context(registry_id)), type=Credentials)


def login(record: RegistryRecord, compartment: Compartment) -> tuple[str, str] | None:
    """User name and password for an engine; None when it needs none, or has none yet. Raises SealError."""
    text = record.token if record.type == EXCHANGED else record.credentials
    if text is None:
        return None
    found = opened(text, compartment, record.id)
    return (found.username, found.password) if found.username else None


async def resend(tx: Tx, record: RegistryRecord, *servers: str) -> int:
    """Tell the nodes again of what runs, or is to run, from an image that this registry's credentials pull, or did while it was at
    one of the other `servers`; how many instances that is."""
    organization_id = record.organization_id
    applies = _concerned(record, {canonical(server) for server in (record.server, *servers)})
    i = instance.c
    live = (i.organization_id == organization_id, i.node_id.is_not(None), i.phase.not_in(_TERMINAL), i.goal == "run")
    statement = select(release.c.id, release.c.template).where(
        release.c.id.in_(select(i.release_id).where(*live).distinct())
    )
    rows = (await tx.conn.execute(statement)).all()
    found = sorted(row.id for row in rows if applies(_template.decode(row.template)))
    touched: list[str] = []
    for start in range(0, len(found), _CHUNK):
        again = update(instance).where(*live, i.release_id.in_(found[start : start + _CHUNK]))
        told = await tx.conn.execute(again.values(retold=i.retold + 1).returning(i.node_id))
        touched += [row.node_id for row in told]
    await nodes.touch_assignments(tx, touched)
    return len(touched)


def _concerned(record: RegistryRecord, hosts: set[str]) -> Callable[[Template], bool]:
    def applies(template: Template) -> bool:
        if template.credentials is not None:
            return False
        if template.registry_id is not None:
            return template.registry_id == record.id
        return canonical(registry_of(template.image)) in hosts

    return applies


EXCHANGED = "ECR"
PUBLIC = "Public"
_TERMINAL = [int(phase) for phase in TERMINAL]
