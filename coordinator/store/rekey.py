"""All that is encrypted by the master key itself, and the two notes that make replacing it safe at every moment.

`bridge` is the new key under the former one, `former` the former under the new one. Both are committed before anything is written
with the new key, so whichever of the two the coordinator is started with next opens everything. The bridge is what the former key
may still do, so it goes first, as soon as the new key is where the next start looks for it; the other goes at that start,
when nothing under way can still write with the former key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Column, Table, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.database import Store
from coordinator.store.tables import account, organization, repeat, setting
from coordinator.store.vault import Vault, VaultError
from coordinator.store.writer import Tx
from shared.kit.seal import SealError, decrypt, encrypt

log = structlog.get_logger("rekey")
BRIDGE, FORMER = "master.bridge", "master.former"
_NOTES = (BRIDGE, FORMER)
_PAGE = 500


@dataclass(frozen=True)
class Known:
    """What a start with `key` finds. `bridged`: the key that took the place of `key`. `former`: the one that `key` took it of."""

    bridged: bytes | None = None
    former: bytes | None = None


@dataclass(frozen=True)
class _Place:
    """A column of values under the master key. `rewrite(key, value)`: None when it is under the present one."""

    table: Table
    key: "Column[str]"
    value: "Column[bytes]"
    rewrite: Callable[[Vault, str, bytes], bytes | None]


def totp_name(user_id: str) -> str:
    """The name a user's second factor is wrapped by: `Vault.wrap(totp_name(user_id), secret)`."""
    return f"totp:{user_id}"


def repeat_name(key: str) -> str:
    """The same of an answer kept for a repeated request."""
    return f"repeat:{key}"


def _setting(vault: Vault, key: str, value: bytes) -> bytes | None:
    """A few settings are plain facts, and stay so."""
    try:
        return vault.rewrapped(key, value)
    except VaultError:
        return None


_PLACES = (
    _Place(
        organization,
        organization.c.id,
        organization.c.sealed_key,
        lambda vault, key, value: vault.rewritten_key(value, key),
    ),
    _Place(
        account,
        account.c.id,
        account.c.totp_secret,
        lambda vault, key, value: vault.rewrapped(totp_name(key), value),
    ),
    _Place(repeat, repeat.c.key, repeat.c.body, lambda vault, key, value: vault.rewrapped(repeat_name(key), value)),
    _Place(setting, setting.c.key, setting.c.value, _setting),
)


async def known(conn: AsyncConnection, key: bytes) -> Known:
    found = {
        row.key: row.value
        for row in await conn.execute(select(setting.c.key, setting.c.value).where(setting.c.key.in_(_NOTES)))
    }
    return Known(_opened(key, BRIDGE, found), _opened(key, FORMER, found))


async def pending(conn: AsyncConnection) -> bool:
    """Whether a replacement has begun and its bridge is still there."""
    return (await conn.execute(select(setting.c.key).where(setting.c.key == BRIDGE))).first() is not None


async def begin(tx: Tx, old: bytes, new: bytes) -> None:
    await tx.conn.execute(delete(setting).where(setting.c.key.in_(_NOTES)))
    notes = [
        {"key": BRIDGE, "value": encrypt(old, new, BRIDGE.encode())},
        {"key": FORMER, "value": encrypt(new, old, FORMER.encode())},
    ]
    await tx.conn.execute(insert(setting), notes)


async def rewrite(store: Store, vault: Vault, *, strict: bool = False) -> int:
    """Put everything under the vault's present key, page by page so that nobody waits long for the writer; how many values were
    not. What opens with neither key stays as it is, and was lost before: with `strict` it raises VaultError instead."""
    return sum([await _rewrite(store, vault, place, strict) for place in _PLACES])


async def burn_bridge(tx: Tx) -> None:
    await tx.conn.execute(delete(setting).where(setting.c.key == BRIDGE))


async def forget(tx: Tx) -> None:
    await tx.conn.execute(delete(setting).where(setting.c.key.in_(_NOTES)))


async def _rewrite(store: Store, vault: Vault, place: _Place, strict: bool) -> int:
    changed, after = 0, ""
    while True:
        page = await store.write(partial(_rewrite_page, vault=vault, place=place, after=after, strict=strict))
        changed += page.changed
        if page.last is None:
            return changed
        after = page.last


@dataclass(frozen=True)
class _Page:
    """`last`: where the next one begins, None when there is none."""

    changed: int
    last: str | None


async def _rewrite_page(tx: Tx, *, vault: Vault, place: _Place, after: str, strict: bool) -> _Page:
    statement = select(place.key.label("key"), place.value.label("value")).where(place.value.is_not(None))
    rows = (await tx.conn.execute(statement.where(place.key > after).order_by(place.key).limit(_PAGE))).all()
    values = []
    for row in rows:
        if not row.value:  # was destroyed, or never there
            continue
        try:
            value = place.rewrite(vault, row.key, row.value)
        except VaultError as error:
            if strict:
                raise VaultError(f"{place.table.name} {row.key}: is not under the present master key") from error
            log.error("a value opens with no master key", table=place.table.name, key=row.key)
            continue
        if value is not None:
            values.append({"b_key": row.key, "b_value": value})
    if values:
        changing = update(place.table).where(place.key == bindparam("b_key"))
        await tx.conn.execute(changing.values({place.value.name: bindparam("b_value")}), values)
    return _Page(len(values), rows[-1].key if len(rows) == _PAGE else None)


def _opened(key: bytes, name: str, found: dict[str, bytes]) -> bytes | None:
    if name not in found:
        return None
    try:
        return decrypt(key, found[name], name.encode())
    except SealError:
        return None
