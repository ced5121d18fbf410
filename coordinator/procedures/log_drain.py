"""Log drains: where an organisation sends all its lines, or some. What is declared here, `logs.drains.shipper` carries out."""

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from coordinator.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from coordinator.logs.drains.lines import NOTICE, Line, Origin
from coordinator.logs.drains.making import make_target
from coordinator.logs.drains.targets import DeliveryError
from coordinator.procedures import paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Page
from coordinator.procedures.log_drain_views import (
    CreateDrain,
    DrainTest,
    DrainView,
    UpdateDrain,
    check,
    filter_of,
    view,
    with_auth,
    with_headers,
)
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given, write_named
from coordinator.store import containers, log_drains, organizations, projects
from coordinator.store.database import Tx
from coordinator.store.log_drains import DrainConfig, DrainFilter, DrainSecret, LogDrainRecord
from coordinator.store.vault import Compartment
from shared.kit.ids import new_id
from shared.kit.seal import SealError
from shared.spec.container import Part

MAX_DRAINS = 20
"""Of one organisation: each has a buffer on the coordinator's disk."""
TEST_SECONDS = 15.0
_HOME_HAS = "the organization already has a drain"


class ListDrains(Page, frozen=True, kw_only=True):
    organization_id: Id


class DrainId(Part, frozen=True):
    drain_id: Id


async def drain(context: Context, data: DrainId | UpdateDrain) -> Scope:
    async with context.services.store.read() as conn:
        record = await log_drains.get(conn, data.drain_id)
    if record is None:
        raise NotFound("drain not found")
    return Scope(record.organization_id, "drain", record)


@procedure("log.drains", "GET", "viewer", scopes.organization, rest="/log-drains")
async def list_drains(context: Context, data: ListDrains) -> list[DrainView]:
    """An organisation's log drains, with what became of the lines they were given."""
    async with context.services.store.read() as conn:
        rows = await log_drains.of_organization(
            conn, data.organization_id, after=data.cursor or "", limit=paging.fetch(data)
        )
    return [_view(context, record) for record in paging.cut(context, data, rows)]


@procedure(
    "log.createDrain",
    "POST",
    "admin",
    scopes.organization,
    created=True,
    rest="/log-drains",
    example={"organizationId": "org_01jabcd", "name": "loki", "type": "loki", "url": "https://loki.example:3100"},
)
async def create(context: Context, data: CreateDrain) -> DrainView:
    """Send lines that are written from now on to Loki, an OTLP endpoint, a syslog receiver or any HTTP endpoint. Each line
    arrives at least once; one that cannot be delivered is buffered on the coordinator's disk, and the oldest give way."""
    config = DrainConfig(
        url=data.url,
        labels=dict(data.labels),
        encoding=data.encoding,
        gzip=data.gzip,
        facility=data.facility,
        ca=data.ca_certificate,
        filter=filter_of(data.filter),
    )
    config, secret = with_auth(config, DrainSecret(), data.auth)
    config, secret = with_headers(config, secret, data.headers)
    await asyncio.to_thread(check, data.type, config)
    drain_id = new_id("drain")

    async def unit(tx: Tx) -> LogDrainRecord:
        if await log_drains.count(tx.conn, data.organization_id) >= MAX_DRAINS:
            raise PreconditionFailed(f"the organization has {MAX_DRAINS} drains already, which is the most")
        await _check_filter(tx, data.organization_id, config.filter)
        compartment = await _compartment(tx, context, data.organization_id)
        record = LogDrainRecord(
            id=drain_id,
            organization_id=data.organization_id,
            name=data.name,
            type=data.type,
            config=config,
            secret=_concealed(secret, compartment, drain_id),
            enabled=data.enabled,
            created_by=context.user.user_id,
            created_at=tx.now,
            updated_at=tx.now,
        )
        await log_drains.insert(tx, record)
        await note(tx, context, "drain.create", drain_id, data.organization_id, name=data.name, type=data.type)
        return record

    return _view(context, await write_named(context, unit, _HOME_HAS, data.name))


@procedure(
    "log.updateDrain",
    "PATCH",
    "admin",
    drain,
    rest="/log-drains/{drainId}",
    example={"drainId": "drain_01jabcd", "enabled": False},
)
async def update(context: Context, data: UpdateDrain) -> DrainView:
    """Change where a drain leads or what it takes, or switch it off and on. While it is off it takes no lines and keeps what it
    has."""
    known: LogDrainRecord = context.record
    config, secret = await _changed(context, known, data)
    await asyncio.to_thread(check, known.type, config)
    fields = given(data, "drain_id")

    async def unit(tx: Tx) -> LogDrainRecord:
        record = await log_drains.get(tx.conn, known.id)
        if record is None:
            raise NotFound("drain not found")
        if (record.config, record.secret) != (known.config, known.secret):
            raise Conflict("the drain was changed by somebody else meanwhile: look at it and try again")
        await _check_filter(tx, record.organization_id, config.filter)
        compartment = await _compartment(tx, context, record.organization_id)
        changes: dict[str, Any] = {name: fields[name] for name in ("name", "enabled") if name in fields}
        await log_drains.change(tx, record, config=config, secret=_concealed(secret, compartment, record.id), **changes)
        await note(tx, context, "drain.update", record.id, record.organization_id, fields=sorted(fields))
        changed = await log_drains.get(tx.conn, record.id)
        assert changed is not None
        return changed

    return _view(context, await write_named(context, unit, _HOME_HAS, fields.get("name", known.name)))


@procedure("log.removeDrain", "DELETE", "admin", drain, rest="/log-drains/{drainId}")
async def remove(context: Context, data: DrainId) -> Nothing:
    """End a drain. What is buffered for it goes with it."""
    record: LogDrainRecord = context.record

    async def unit(tx: Tx) -> None:
        if not await log_drains.remove(tx, record):
            raise NotFound("drain not found")
        await note(tx, context, "drain.remove", record.id, record.organization_id, name=record.name)

    await context.services.store.write(unit)
    return Nothing()


@procedure("log.testDrain", "POST", "admin", drain, rest="/log-drains/{drainId}/test")
async def test(context: Context, data: DrainId) -> DrainTest:
    """Send one line of the stream `argosy` right now, past the buffer, and say what the other side answered."""
    record: LogDrainRecord = context.record
    secret = await _revealed(context, record)
    text = f"a test of the drain {record.name}"
    entry = (Origin(record.organization_id), Line(int(context.now() * 1e9), 0, NOTICE, text))
    began = time.monotonic()
    error: str | None = None
    try:
        target = await asyncio.to_thread(make_target, record.type, record.config, secret)
        try:
            async with asyncio.timeout(TEST_SECONDS):
                refused = await target.send([entry])
            error = refused.message if refused.lines else None
        except TimeoutError:
            error = f"no answer in {TEST_SECONDS:g} seconds"
        finally:
            await target.close()
    except DeliveryError as failure:
        error = str(failure)
    took = int((time.monotonic() - began) * 1000)

    async def unit(tx: Tx) -> None:
        await note(tx, context, "drain.test", record.id, record.organization_id, ok=error is None)

    await context.services.store.write(unit)
    return DrainTest(ok=error is None, error=error, duration_ms=took)


def _view(context: Context, record: LogDrainRecord) -> DrainView:
    return view(record, context.services.drains.status(record.id))


async def _changed(context: Context, known: LogDrainRecord, data: UpdateDrain) -> tuple[DrainConfig, DrainSecret]:
    config, stored = known.config, await _revealed(context, known)
    plain: dict[str, Any] = {
        "url": data.url,
        "labels": data.labels,
        "encoding": data.encoding,
        "gzip": data.gzip,
        "facility": data.facility,
        "ca": data.ca_certificate,
        "filter": UNSET if data.filter is UNSET else filter_of(data.filter),
    }
    changes = {name: value for name, value in plain.items() if value is not UNSET}
    config = msgspec.structs.replace(config, **changes)
    # To another machine what is stored does not go along: else whoever may change a drain could have its secrets sent to a place of
    # their own, and read them there.
    moved = urlsplit(config.url)[:2] != urlsplit(known.config.url)[:2]
    if moved and ((stored.credential and data.auth is UNSET) or (stored.headers and data.headers is UNSET)):
        raise BadRequest("url: at a new address auth and headers are to be given again, as far as the drain has them")
    secret = DrainSecret() if moved else stored
    if data.auth is not UNSET:
        config, secret = with_auth(config, secret, data.auth)
    if data.headers is not UNSET:
        config, secret = with_headers(config, secret, data.headers)
    return config, secret


async def _check_filter(tx: Tx, organization_id: str, wanted: DrainFilter) -> None:
    if wanted.project_id is not None:
        project = await projects.get(tx.conn, wanted.project_id)
        if project is None or project.organization_id != organization_id:
            raise NotFound("project not found")
    if wanted.environment_id is not None:
        owner = await projects.environment_organization(tx.conn, wanted.environment_id)
        if owner != organization_id:
            raise NotFound("environment not found")
    if wanted.container_id is not None:
        container = await containers.get(tx.conn, wanted.container_id)
        if container is None or container.organization_id != organization_id:
            raise NotFound("container not found")


async def _compartment(tx: Tx, context: Context, organization_id: str) -> Compartment:
    record = await organizations.get(tx.conn, organization_id)
    if record is None:
        raise NotFound("organization not found")
    return context.services.vault.unlock(record.sealed_key, organization_id)


def _concealed(secret: DrainSecret, compartment: Compartment, drain_id: str) -> str | None:
    if secret == DrainSecret():
        return None
    return compartment.conceal(msgspec.json.encode(secret).decode(), log_drains.drain_context(drain_id))


async def _revealed(context: Context, record: LogDrainRecord) -> DrainSecret:
    if record.secret is None:
        return DrainSecret()
    async with context.services.store.read() as conn:
        owner = await organizations.get(conn, record.organization_id)
    if owner is None:
        raise NotFound("drain not found")
    compartment = context.services.vault.unlock(owner.sealed_key, owner.id)
    try:
        return msgspec.json.decode(
            compartment.reveal(record.secret, log_drains.drain_context(record.id)), type=DrainSecret
        )
    except SealError as error:
        raise PreconditionFailed("what opens the other side cannot be read any more: make the drain anew") from error
