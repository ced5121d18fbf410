"""Proving that a chain of audit entries is whole, and cutting its oldest part off without losing that proof.

A chain is whole when its first entry follows its checkpoint (or nothing), each entry follows the one before it, each hash is that
of its entry, each signature is ours, and the last entry is the one the chain's head names. Whoever can write the database can do
everything but sign; what such a one could still do is to put the chain back to what it was earlier, head included. That shows to
whoever kept a later head: `known`.

Entries are read in pages and checked in a thread: neither memory nor other callers feel how long a chain is.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.audit import Notary
from coordinator.store.chain import GENESIS, Checkpoint, Link, checkpoint_digest, digest
from coordinator.store.tables import audit, audit_checkpoint, audit_head
from coordinator.store.writer import Tx
from shared.kit.seal import verify

PAGE = 256
_LINK = tuple(Link.__dataclass_fields__)
_FIELDS = [audit.c[name] for name in (*_LINK, "hash", "signature")]
_page = (
    select(*_FIELDS)
    .where(audit.c.chain == bindparam("of_chain"), audit.c.sequence > bindparam("after"))
    .where(audit.c.sequence <= bindparam("through"))
    .order_by(audit.c.sequence)
    .limit(bindparam("at_most"))
)
_head = select(audit_head.c.sequence, audit_head.c.hash).where(audit_head.c.chain == bindparam("of_chain"))
_checkpoint = select(audit_checkpoint).where(audit_checkpoint.c.chain == bindparam("of_chain"))
_remove = delete(audit).where(audit.c.chain == bindparam("of_chain"), audit.c.sequence <= bindparam("through"))
_END = 2**62
_FOREIGN = "the chain is not the one of the known head"


@dataclass(frozen=True)
class Place:
    """Where in a chain: an entry's sequence and hash."""

    sequence: int
    hash: bytes


@dataclass(frozen=True)
class Proof:
    """`broken_at`: the sequence of the first entry that is not what follows from those before it. `since`, `until`: times of the
    first and the last entry there are."""

    ok: bool = True
    entries: int = 0
    since: float | None = None
    until: float | None = None
    head: Place | None = None
    checkpoint: Checkpoint | None = None
    broken_at: int | None = None
    reason: str = ""


async def prove(conn: AsyncConnection, chain: str, public: bytes, known: Place | None = None) -> Proof:
    """`known`: a head seen earlier, which must still be in the chain; of one before the checkpoint nothing can be said."""
    place, problem = await _start(conn, chain, public)
    proof = Proof(head=place, checkpoint=await checkpoint_of(conn, chain))
    if problem is not None:
        return _broken(proof, place.sequence, problem)
    if known is not None and known.sequence == place.sequence and known != place:
        return _broken(proof, place.sequence, _FOREIGN)
    async for rows in _pages(conn, chain, place.sequence):
        checked, problem = await asyncio.to_thread(_check, rows, place, public, known)
        followed = proof.entries + checked.sequence - place.sequence
        since = rows[0].at if proof.since is None else proof.since
        proof, place = replace(proof, entries=followed, since=since, until=rows[-1].at, head=checked), checked
        if problem is not None:
            return _broken(proof, place.sequence + 1, problem)
    if known is not None and known.sequence > place.sequence:
        return _broken(proof, place.sequence + 1, "the chain ends before the known head")
    return await _end(conn, chain, proof, place)


async def _start(conn: AsyncConnection, chain: str, public: bytes) -> tuple[Place, str | None]:
    """Where the chain's first entry goes on from, and what is wrong with that."""
    row = (await conn.execute(_checkpoint, {"of_chain": chain})).first()
    if row is None:
        return Place(0, GENESIS), None
    signed = checkpoint_digest(Checkpoint(row.chain, row.sequence, row.hash, row.at))
    genuine = await asyncio.to_thread(verify, public, row.signature, signed)
    return Place(row.sequence, row.hash), None if genuine else "the checkpoint is not signed by this coordinator"


async def _end(conn: AsyncConnection, chain: str, proof: Proof, last: Place) -> Proof:
    row = (await conn.execute(_head, {"of_chain": chain})).first()
    named = Place(0, GENESIS) if row is None else Place(row.sequence, row.hash)
    if named == last:
        return proof
    if named.sequence == last.sequence:
        return _broken(proof, last.sequence, f"the chain's head names another entry {last.sequence}")
    reason = f"the chain's head names entry {named.sequence} as the last, and the last there is is {last.sequence}"
    return _broken(proof, min(named.sequence, last.sequence) + 1, reason)


def _broken(proof: Proof, sequence: int, reason: str) -> Proof:
    return replace(proof, ok=False, broken_at=sequence, reason=reason)


def _check(rows: Sequence[Any], place: Place, public: bytes, known: Place | None = None) -> tuple[Place, str | None]:
    """How far the rows follow, and what is wrong with the next."""
    for row in rows:
        expected = place.sequence + 1
        if row.sequence != expected:
            return place, f"entry {expected} is missing"
        link = Link(**{name: getattr(row, name) for name in _LINK})
        if digest(place.hash, link) != row.hash:
            return place, f"entry {expected} was changed, or does not follow the one before it"
        if not verify(public, row.signature, row.hash):
            return place, f"entry {expected} is not signed by this coordinator"
        if known is not None and known.sequence == expected and known.hash != row.hash:
            return place, _FOREIGN
        place = Place(row.sequence, row.hash)
    return place, None


async def _pages(conn: AsyncConnection, chain: str, after: int) -> AsyncIterator[Sequence[Any]]:
    while True:
        values = {"of_chain": chain, "after": after, "through": _END, "at_most": PAGE}
        rows = (await conn.execute(_page, values)).all()
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        after = rows[-1].sequence


async def checkpoint_of(conn: AsyncConnection, chain: str) -> Checkpoint | None:
    row = (await conn.execute(_checkpoint, {"of_chain": chain})).first()
    return None if row is None else Checkpoint(row.chain, row.sequence, row.hash, row.at)


async def outlived(conn: AsyncConnection, before: float) -> dict[str, int]:
    """Chain → the last of its entries that are older than `before`, as are all up to it: a clock that was set back must not let a
    young entry go."""
    young = (
        select(audit.c.chain, func.min(audit.c.sequence).label("first"))
        .where(audit.c.at >= before)
        .group_by(audit.c.chain)
    ).subquery()
    old = (
        select(audit.c.chain, func.max(audit.c.sequence))
        .outerjoin(young, young.c.chain == audit.c.chain)
        .where(audit.c.at < before)
        .where((young.c.first.is_(None)) | (audit.c.sequence < young.c.first))
        .group_by(audit.c.chain)
    )
    return {row[0]: row[1] for row in await conn.execute(old)}


_INSERT: dict[str, sqlite.Insert | postgresql.Insert] = {
    "sqlite": sqlite.insert(audit_checkpoint),
    "postgresql": postgresql.insert(audit_checkpoint),
}
_PUT = {
    name: made.on_conflict_do_update(
        index_elements=[audit_checkpoint.c.chain],
        set_={key: made.excluded[key] for key in ("sequence", "hash", "at", "signature")},
    )
    for name, made in _INSERT.items()
}


@dataclass(frozen=True)
class Cut:
    """How far a chain is removed now, or what is wrong with it."""

    through: int
    problem: str | None = None


async def cut(tx: Tx, notary: Notary, chain: str, through: int) -> Cut:
    """Removes a page of the oldest entries, none after `through`, and signs where the chain goes on from. Entries that do not prove
    what they should are not removed: they are the evidence."""
    place, problem = await _start(tx.conn, chain, notary.public)
    values = {"of_chain": chain, "after": place.sequence, "through": through, "at_most": PAGE}
    rows = (await tx.conn.execute(_page, values)).all()
    if problem is None:
        place, problem = _check(rows, place, notary.public)
    if problem is not None or not rows:
        return Cut(through, problem)
    checkpoint = Checkpoint(chain, place.sequence, place.hash, tx.now)
    signature = notary.sign(checkpoint_digest(checkpoint))
    await tx.conn.execute(_PUT[tx.conn.dialect.name], {**vars(checkpoint), "signature": signature})
    await tx.conn.execute(_remove, {"of_chain": chain, "through": place.sequence})
    return Cut(place.sequence)
