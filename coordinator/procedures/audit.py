"""The audit: who did what in an organisation, and the proof that nothing of it was touched."""

import re
from typing import Annotated, Any

from msgspec import Meta, field

from coordinator.errors import BadRequest, NotFound
from coordinator.procedures import paging, scopes
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.log_lines import Timestamp, seconds
from coordinator.procedures.table import procedure
from coordinator.store import audit, proof
from coordinator.store.audit import AuditRecord, Filter
from coordinator.store.chain import Checkpoint
from coordinator.store.proof import Place, Proof
from shared.kit.clock import iso
from shared.spec.container import Part

_CURSOR = re.compile(r"seq_([0-9]{1,18})")
_HEAD = re.compile(r"([0-9]{1,18})\.([0-9a-f]{64})")
Word = Annotated[str, Meta(min_length=1, max_length=64)]


class ListEntries(Page, frozen=True, kw_only=True):
    """`since` is included, `until` is not."""

    organization_id: Id
    action: Annotated[Word, Meta(description="As `container.deploy`.")] | None = None
    resource_type: Annotated[Word, Meta(description="As `container`.")] | None = None
    resource_id: Annotated[Word, Meta(description="The id of what it was done to.")] | None = None
    actor_id: Annotated[Word, Meta(description="A user, token or node, or `system`.")] | None = None
    since: Timestamp | None = None
    until: Timestamp | None = None


class EntryId(Part, frozen=True):
    audit_id: Id


class VerifyChain(Part, frozen=True, kw_only=True):
    organization_id: Id
    known_head: (
        Annotated[
            str, Meta(max_length=90, description="The `head` of an earlier proof: the chain must still contain it.")
        ]
        | None
    ) = None


class EntryView(View, frozen=True):
    """`actor`: a user, token or node, or `system`. `before`, `after`: SHA-256 of the thing as it was declared, null where it was
    not there. `hash` covers the whole entry and the hash of the one before it."""

    id: str
    sequence: int
    ts: str
    actor: str
    action: str
    resource_type: str
    resource: str
    before: str | None
    after: str | None
    detail: dict[str, Any]
    ip: str | None
    hash: str


class EntryDetail(EntryView, frozen=True):
    """`signature`: the coordinator's Ed25519 signature over the hash."""

    signature: str


class CheckpointView(View, frozen=True):
    """Entries up to `sequence` were removed at `at`, and the chain goes on from there."""

    sequence: int
    hash: str
    at: str


class ProofView(View, frozen=True):
    """`entries` follow each other from the checkpoint on, or from the beginning, up to `head`; `from` and `to`: when the first and
    the last were written. `brokenAt`: the sequence of the first that does not follow, null when all do. `publicKey`: what the
    signatures verify with, in hex."""

    ok: bool
    entries: int
    from_: str | None = field(name="from")
    to: str | None
    head: str | None
    checkpoint: CheckpointView | None
    broken_at: int | None
    reason: str | None
    public_key: str


async def _entry(context: Context, data: EntryId) -> Scope:
    async with context.services.store.read() as conn:
        record = await audit.get(conn, data.audit_id)
    if record is None:
        raise NotFound("audit entry not found")
    return Scope(record.chain, "audit entry", record)


@procedure("audit.all", "GET", "admin", scopes.organization, rest="/organizations/{organizationId}/audit")
async def list_entries(context: Context, data: ListEntries) -> list[EntryView]:
    """What was done in an organisation, newest first."""
    wanted = Filter(
        action=data.action,
        resource_type=data.resource_type,
        resource=data.resource_id,
        actor=data.actor_id,
        since=seconds("since", data.since),
        until=seconds("until", data.until),
    )
    before = _sequence(data.cursor)
    async with context.services.store.read() as conn:
        found = await audit.of_organization(
            conn, data.organization_id, wanted=wanted, before=before, limit=paging.fetch(data)
        )
    if len(found) > data.limit:
        context.next_cursor = f"seq_{found[data.limit - 1].sequence}"
    return [EntryView(**_fields(record)) for record in found[: data.limit]]


@procedure("audit.one", "GET", "admin", _entry, rest="/audit/{auditId}")
async def one(context: Context, data: EntryId) -> EntryDetail:
    """One entry, with its signature."""
    record: AuditRecord = context.record
    return EntryDetail(**_fields(record), signature=record.signature.hex())


@procedure("audit.verify", "GET", "admin", scopes.organization, rest="/organizations/{organizationId}/audit/verify")
async def verify(context: Context, data: VerifyChain) -> ProofView:
    """Prove that no entry of an organisation was changed, removed or slipped in. A head kept elsewhere proves besides that nothing
    was taken back since."""
    notary = context.services.notary
    known = _place(data.known_head)
    async with notary.proving, context.services.store.read() as conn:
        found = await proof.prove(conn, data.organization_id, notary.public, known)
    return _proof_view(found, notary.public)


def _fields(record: AuditRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "sequence": record.sequence,
        "ts": iso(record.at),
        "actor": record.actor,
        "action": record.action,
        "resource_type": record.resource_type,
        "resource": record.resource,
        "before": record.before or None,
        "after": record.after or None,
        "detail": record.detail,
        "ip": record.address or None,
        "hash": record.hash.hex(),
    }


def _proof_view(found: Proof, public: bytes) -> ProofView:
    checkpoint = found.checkpoint
    return ProofView(
        ok=found.ok,
        entries=found.entries,
        from_=None if found.since is None else iso(found.since),
        to=None if found.until is None else iso(found.until),
        head=None if found.head is None else f"{found.head.sequence}.{found.head.hash.hex()}",
        checkpoint=None if checkpoint is None else _checkpoint_view(checkpoint),
        broken_at=found.broken_at,
        reason=found.reason or None,
        public_key=public.hex(),
    )


def _checkpoint_view(checkpoint: Checkpoint) -> CheckpointView:
    return CheckpointView(sequence=checkpoint.sequence, hash=checkpoint.hash.hex(), at=iso(checkpoint.at))


def _sequence(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise BadRequest("cursor: is not what X-Next-Cursor said")
    return int(found[1])


def _place(head: str | None) -> Place | None:
    if head is None:
        return None
    found = _HEAD.fullmatch(head)
    if found is None:
        raise BadRequest("knownHead: is not the head of an earlier proof")
    return Place(int(found[1]), bytes.fromhex(found[2]))
