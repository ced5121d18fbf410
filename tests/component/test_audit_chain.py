"""The audit chain against whoever can write the database: each way of tampering shows, and a cut leaves the rest provable."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from coordinator.control.retention import Retention
from coordinator.store import proof
from coordinator.store.audit import SYSTEM, Notary
from coordinator.store.chain import GENESIS, Checkpoint, Link, checkpoint_digest, digest
from coordinator.store.database import Store, Tx
from coordinator.store.proof import Place, Proof
from coordinator.store.tables import audit, audit_checkpoint, audit_head
from shared.kit.seal import SigningKey
from tests.fakes.clock import FakeClock

CHAIN = "org_1"
DAY = 86_400.0
KEY = SigningKey.generate()
Tamper = Callable[[Tx], Awaitable[Any]]


@pytest.fixture
def notary() -> Notary:
    return Notary(KEY)


async def append(store: Store, notary: Notary, count: int, chain: str = CHAIN) -> None:
    async def unit(tx: Tx) -> None:
        for index in range(count):
            await notary.append(
                tx,
                "container.scale",
                f"ctr_{index}",
                organization_id=None if chain == SYSTEM else chain,
                actor="user_1",
                detail={"replicas": index},
            )

    await store.write(unit)


async def prove(store: Store, known: Place | None = None) -> Proof:
    async with store.read() as conn:
        return await proof.prove(conn, CHAIN, KEY.public, known)


async def tamper(store: Store, *statements: Any) -> None:
    async def unit(tx: Tx) -> None:
        for statement in statements:
            await tx.conn.execute(statement)

    await store.write(unit)


def entry(sequence: int) -> Any:
    return (audit.c.chain == CHAIN) & (audit.c.sequence == sequence)


async def test_an_untouched_chain_is_whole_whatever_its_length(store: Store, notary: Notary) -> None:
    await append(store, notary, proof.PAGE * 2 + 3)
    await append(store, notary, 2, "org_2")
    found = await prove(store)
    assert (found.ok, found.entries, found.broken_at, found.checkpoint) == (True, proof.PAGE * 2 + 3, None, None)
    assert found.head is not None
    assert found.head.sequence == found.entries
    assert found.since is not None
    assert found.until is not None
    assert found.since <= found.until


async def test_a_chain_nobody_wrote_to_is_whole_and_empty(store: Store) -> None:
    found = await prove(store)
    assert (found.ok, found.entries, found.since) == (True, 0, None)
    assert found.head == Place(0, GENESIS)


@pytest.mark.parametrize(
    "change",
    [
        {"at": 1.0},
        {"actor": "user_2"},
        {"action": "container.stop"},
        {"resource_type": "x"},
        {"resource": "ctr_x"},
        {"before": "00"},
        {"after": "00"},
        {"detail": "{}"},
        {"address": "192.0.2.1"},
        {"id": "aud_x"},
        {"hash": b"x" * 32},
        {"signature": b"x" * 64},
    ],
)
async def test_a_changed_field_shows(store: Store, notary: Notary, change: dict[str, Any]) -> None:
    await append(store, notary, 5)
    await tamper(store, update(audit).where(entry(3)).values(**change))
    found = await prove(store)
    assert (found.ok, found.broken_at, found.entries) == (False, 3, 2)


async def test_an_entry_moved_to_another_chain_shows_in_both(store: Store, notary: Notary) -> None:
    await append(store, notary, 3)
    await append(store, notary, 1, "org_2")
    await tamper(store, update(audit).where(entry(2)).values(chain="org_2"))
    assert (await prove(store)).broken_at == 2
    async with store.read() as conn:
        assert (await proof.prove(conn, "org_2", KEY.public)).broken_at == 2


async def test_a_removed_middle_entry_shows(store: Store, notary: Notary) -> None:
    await append(store, notary, 5)
    await tamper(store, delete(audit).where(entry(3)))
    found = await prove(store)
    assert (found.ok, found.broken_at, found.reason) == (False, 3, "entry 3 is missing")


async def test_a_removed_beginning_shows(store: Store, notary: Notary) -> None:
    await append(store, notary, 5)
    await tamper(store, delete(audit).where(audit.c.sequence <= 2))
    assert (await prove(store)).broken_at == 1


async def test_a_removed_tail_shows(store: Store, notary: Notary) -> None:
    await append(store, notary, 5)
    await tamper(store, delete(audit).where(audit.c.sequence >= 4))
    found = await prove(store)
    assert (found.ok, found.broken_at) == (False, 4)
    assert "names entry 5" in found.reason


async def test_a_chain_put_back_to_what_it_was_shows_to_whoever_kept_a_later_head(store: Store, notary: Notary) -> None:
    await append(store, notary, 3)
    earlier = (await prove(store)).head
    await append(store, notary, 2)
    later = (await prove(store)).head
    assert earlier is not None
    await tamper(
        store,
        delete(audit).where(audit.c.sequence > 3),
        update(audit_head).where(audit_head.c.chain == CHAIN).values(sequence=3, hash=earlier.hash),
    )
    assert (await prove(store)).ok
    assert (await prove(store, earlier)).ok
    assert (await prove(store, later)).broken_at == 4
    await append(store, notary, 2)
    assert (await prove(store, later)).broken_at == 5


async def test_a_removed_or_changed_head_shows(store: Store, notary: Notary) -> None:
    await append(store, notary, 2)
    await tamper(store, update(audit_head).values(hash=b"x" * 32))
    assert (await prove(store)).broken_at == 2
    await tamper(store, delete(audit_head))
    assert (await prove(store)).broken_at == 1


async def test_swapped_entries_show(store: Store, notary: Notary) -> None:
    await append(store, notary, 4)
    await tamper(
        store,
        update(audit).where(entry(2)).values(sequence=99),
        update(audit).where(entry(3)).values(sequence=2),
        update(audit).where(entry(99)).values(sequence=3),
    )
    assert (await prove(store)).broken_at == 2


async def forge(store: Store, sign: Callable[[bytes], bytes]) -> None:
    """Changes entry 2 and computes every hash from there on anew, the head's too."""

    async def unit(tx: Tx) -> None:
        rows = (await tx.conn.execute(select(audit).order_by(audit.c.sequence))).all()
        previous = GENESIS
        for row in rows:
            fields = {name: getattr(row, name) for name in Link.__dataclass_fields__}
            if row.sequence == 2:
                fields["detail"] = json.dumps({"replicas": 99})
            previous = digest(previous, Link(**fields))
            values = {"detail": fields["detail"], "hash": previous, "signature": sign(previous)}
            await tx.conn.execute(update(audit).where(audit.c.id == row.id).values(**values))
        await tx.conn.execute(update(audit_head).values(hash=previous))

    await store.write(unit)


async def test_hashes_computed_anew_without_the_key_show(store: Store, notary: Notary) -> None:
    await append(store, notary, 4)
    await forge(store, SigningKey.generate().sign)
    found = await prove(store)
    assert (found.ok, found.broken_at) == (False, 1)
    assert "not signed" in found.reason


async def test_only_the_key_could_forge_which_is_why_it_rests_sealed(store: Store, notary: Notary) -> None:
    """The forger of these tests does all that a forger can: with the key nothing shows."""
    await append(store, notary, 4)
    await forge(store, KEY.sign)
    assert (await prove(store)).ok


async def kept(store: Store, notary: Notary, clock: FakeClock, days: int = 30) -> None:
    await Retention(store, notary, clock, days).cut()


async def backdate(store: Store, notary: Notary, clock: FakeClock, old: int, young: int) -> None:
    """Entries of two moments: before the time limit and within it."""
    await append(store, notary, old)
    clock.jump(40 * DAY)
    await append(store, notary, young)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def aging(database_url: str, clock: FakeClock) -> Any:
    opened = await Store.open(database_url, clock)
    yield opened
    await opened.close()


async def test_a_cut_leaves_a_signed_beginning_and_the_rest_proves(
    aging: Store, notary: Notary, clock: FakeClock
) -> None:
    old = proof.PAGE + 10
    await backdate(aging, notary, clock, old, 5)
    await kept(aging, notary, clock)
    found = await prove(aging)
    assert (found.ok, found.entries) == (True, 6)  # the cut is an entry too
    assert found.checkpoint is not None
    assert found.checkpoint.sequence == old
    clock.jump(40 * DAY)
    await kept(aging, notary, clock)
    found = await prove(aging)
    assert (found.ok, found.entries) == (True, 1)
    await append(aging, notary, 1)
    assert (await prove(aging)).ok


async def test_a_second_cut_with_nothing_old_changes_nothing(aging: Store, notary: Notary, clock: FakeClock) -> None:
    await backdate(aging, notary, clock, 3, 3)
    await kept(aging, notary, clock)
    first = await prove(aging)
    await kept(aging, notary, clock)
    assert await prove(aging) == first


async def test_what_follows_a_younger_entry_stays_although_a_clock_says_it_is_old(
    aging: Store, notary: Notary, clock: FakeClock
) -> None:
    await backdate(aging, notary, clock, 2, 1)
    clock.jump(-40 * DAY)
    await append(aging, notary, 2)
    clock.jump(40 * DAY)
    await kept(aging, notary, clock)
    found = await prove(aging)
    assert found.checkpoint is not None
    assert (found.ok, found.checkpoint.sequence, found.entries) == (True, 2, 4)


@pytest.mark.parametrize("forged", [{"hash": b"x" * 32}, {"sequence": 2}, {"signature": b"x" * 64}])
async def test_a_forged_checkpoint_shows(
    aging: Store, notary: Notary, clock: FakeClock, forged: dict[str, Any]
) -> None:
    await backdate(aging, notary, clock, 3, 3)
    await kept(aging, notary, clock)
    await tamper(aging, update(audit_checkpoint).values(**forged))
    found = await prove(aging)
    assert not found.ok
    assert "checkpoint" in found.reason


async def test_a_cut_made_by_somebody_else_shows(aging: Store, notary: Notary, clock: FakeClock) -> None:
    await append(aging, notary, 5)
    async with aging.read() as conn:
        hidden = (await conn.execute(select(audit.c.hash, audit.c.signature).where(entry(3)))).one()
    checkpoint = Checkpoint(CHAIN, 3, hidden.hash, 1.0)
    values = dict(zip(("chain", "sequence", "hash", "at"), astuple(checkpoint), strict=True))
    await tamper(
        aging,
        delete(audit).where(audit.c.sequence <= 3),
        insert(audit_checkpoint).values(**values, signature=hidden.signature),
    )
    assert not (await prove(aging)).ok
    stranger = SigningKey.generate().sign(checkpoint_digest(checkpoint))
    await tamper(aging, update(audit_checkpoint).values(signature=stranger))
    assert not (await prove(aging)).ok


async def test_a_broken_chain_is_not_cut(aging: Store, notary: Notary, clock: FakeClock) -> None:
    await backdate(aging, notary, clock, 5, 1)
    await tamper(aging, update(audit).where(entry(2)).values(actor="user_2"))
    await kept(aging, notary, clock)
    async with aging.read() as conn:
        assert (await conn.execute(select(func.count()).select_from(audit))).scalar() == 6
    assert (await prove(aging)).broken_at == 2


async def test_each_chain_is_cut_for_itself(aging: Store, notary: Notary, clock: FakeClock) -> None:
    await append(aging, notary, 3, SYSTEM)
    await backdate(aging, notary, clock, 3, 1)
    await kept(aging, notary, clock)
    async with aging.read() as conn:
        chains = (await conn.execute(text("SELECT chain, sequence FROM audit_checkpoint ORDER BY chain"))).all()
        assert [tuple(row) for row in chains] == [(CHAIN, 3), (SYSTEM, 3)]
        assert (await proof.prove(conn, SYSTEM, KEY.public)).ok
    assert (await prove(aging)).ok
