"""Who did what, written in the transaction that did it, as the next link of the organisation's chain.

The head of a chain is a row of its own, read and moved on in the same transaction: the database orders entries, whoever writes.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import tables
from coordinator.store.chain import GENESIS, Link, digest
from coordinator.store.mapping import Mapper, Record
from coordinator.store.prepared import Prepared
from coordinator.store.writer import Tx
from shared.kit.ids import new_id
from shared.kit.seal import SigningKey

SYSTEM = "system"
"""The chain of what belongs to no organisation."""


class AuditRecord(Record, frozen=True, kw_only=True):
    """`actor` is a user, token or node id, or `system`; `resource` an id; `detail` whatever explains it and is no secret."""

    id: str
    chain: str
    sequence: int
    at: float
    actor: str
    action: str
    resource_type: str
    resource: str
    before: str
    after: str
    detail: dict[str, Any]
    address: str
    hash: bytes
    signature: bytes


_audit = tables.audit.c
audits = Mapper(AuditRecord, tables.audit)
_head = Prepared(  # SQLite has one writer, and no locks on rows
    select(tables.audit_head.c.sequence, tables.audit_head.c.hash)
    .where(tables.audit_head.c.chain == bindparam("of_chain"))
    .with_for_update()
)
_move_head = Prepared(
    update(tables.audit_head)
    .where(tables.audit_head.c.chain == bindparam("of_chain"))
    .values(sequence=bindparam("new_sequence"), hash=bindparam("new_hash"))
)
_append = Prepared(tables.audit.insert())
_FIRST = {
    "sqlite": sqlite.insert(tables.audit_head).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(tables.audit_head).on_conflict_do_nothing(),
}
_encoder = msgspec.json.Encoder()


class Notary:
    """Appends entries and signs them. Every part that writes audit entries shares the coordinator's signing key."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.public = key.public
        self.proving = asyncio.Lock()
        """Held while a chain is proved: a long one takes seconds of a processor, and one processor is enough for that."""

    def sign(self, digest: bytes) -> bytes:
        return self._key.sign(digest)

    async def append(
        self,
        tx: Tx,
        action: str,
        resource: str,
        *,
        organization_id: str | None,
        actor: str,
        detail: dict[str, Any],
        address: str = "",
        before: str = "",
        after: str = "",
    ) -> None:
        """`action` is `<noun>.<verb>`; the noun is the resource's type. `before` and `after`: digests, empty where there
        is none."""
        chain = organization_id or SYSTEM
        sequence, previous = await _take_head(tx.conn, chain)
        link = Link(
            chain=chain,
            sequence=sequence + 1,
            id=new_id("aud"),
            at=tx.now,
            actor=actor,
            action=action,
            resource_type=action.partition(".")[0],
            resource=resource,
            before=before,
            after=after,
            detail=_encoder.encode(detail).decode(),
            address=address,
        )
        sealed = digest(previous, link)
        await _append.change(tx.conn, {**_columns(link), "hash": sealed, "signature": self._key.sign(sealed)})
        await _move_head.change(tx.conn, {"of_chain": chain, "new_sequence": link.sequence, "new_hash": sealed})


@dataclass(frozen=True)
class Filter:
    """What a list of entries is narrowed to; None: not at all. `since` and `until`: Unix seconds, `until` not included."""

    action: str | None = None
    resource_type: str | None = None
    resource: str | None = None
    actor: str | None = None
    since: float | None = None
    until: float | None = None


async def of_organization(
    conn: AsyncConnection,
    organization_id: str,
    *,
    wanted: Filter = Filter(),
    before: int | None = None,
    limit: int = 200,
) -> list[AuditRecord]:
    """Newest first; `before` is the last sequence of the page before."""
    statement = audits.select(_audit.chain == organization_id, *_narrow(wanted))
    if before is not None:
        statement = statement.where(_audit.sequence < before)
    return await audits.many(conn, statement.order_by(_audit.sequence.desc()).limit(limit))


def _narrow(wanted: Filter) -> list[ColumnElement[bool]]:
    equal = {
        _audit.action: wanted.action,
        _audit.resource_type: wanted.resource_type,
        _audit.resource: wanted.resource,
        _audit.actor: wanted.actor,
    }
    found = [column == value for column, value in equal.items() if value is not None]
    if wanted.since is not None:
        found.append(_audit.at >= wanted.since)
    if wanted.until is not None:
        found.append(_audit.at < wanted.until)
    return found


async def get(conn: AsyncConnection, entry_id: str) -> AuditRecord | None:
    return await audits.one(conn, _audit.id == entry_id)


async def _take_head(conn: AsyncConnection, chain: str) -> tuple[int, bytes]:
    """The chain's last sequence and hash, locked until the end of the transaction; made on the chain's first entry."""
    row = await _head.first(conn, {"of_chain": chain})
    if row is None:
        first = {"chain": chain, "sequence": 0, "hash": GENESIS}
        await conn.execute(_FIRST[conn.dialect.name], first)
        row = await _head.first(conn, {"of_chain": chain})
    assert row is not None, "it was there, or has just been made"
    return row[0], row[1]


def _columns(link: Link) -> dict[str, Any]:
    return {name: getattr(link, name) for name in link.__dataclass_fields__}
