"""Guessing is slow: after a few failures, each next try has to wait twice as long as the one before.

Failures are counted for the account that was named, whether it exists or not, and for the address they come from; of IPv6 the
network, for whoever has one of its addresses has all of them. A try that comes too early is not looked at, so not even the right
password gets in. Each is counted before it is known how it ends (see `store.attempts`).
"""

import hashlib
import math
from dataclasses import dataclass

from coordinator.errors import TooManyRequests
from coordinator.procedures.context import Context
from coordinator.store import attempts
from coordinator.store.attempts import AttemptsRecord
from coordinator.store.writer import Tx
from shared.kit.network import neighbourhood


@dataclass(frozen=True)
class Patience:
    """`free` failures cost nothing; the next costs `first` seconds, and so on doubling up to `longest`."""

    free: int
    first: float = 2.0
    longest: float = 900.0


ACCOUNT = Patience(free=5)
ADDRESS = Patience(free=20)
"""Many people may share an address, so it is given more."""


@dataclass(frozen=True)
class Attempt:
    """One try that was counted. `before`: what was known of each key without it."""

    account: str
    keys: tuple[str, ...]
    before: dict[str, AttemptsRecord]


def wait(patience: Patience, record: AttemptsRecord | None, now: float) -> float:
    """Seconds until the next try is looked at."""
    if record is None or record.failures <= patience.free:
        return 0.0
    doublings = min(record.failures - patience.free - 1, 60)
    delay = min(patience.longest, patience.first * 2.0**doublings)
    return max(0.0, min(delay, record.last_at + delay - now))


async def begin(context: Context, email: str | None) -> Attempt:
    """Counts a try at this account, or, where none is named, only one from this address. Raises TooManyRequests when it comes
    too early."""
    account = _key("account", email) if email is not None else ""
    patience = {account: ACCOUNT} if account else {}
    if context.address:
        patience[_key("address", neighbourhood(context.address))] = ADDRESS

    async def unit(tx: Tx) -> Attempt | float:
        known = await attempts.look(tx, tuple(patience))
        longest = max((wait(patience[key], known.get(key), tx.now) for key in patience), default=0.0)
        if longest > 0:
            return longest
        await attempts.count(tx, tuple(patience))
        return Attempt(account, tuple(patience), known)

    counted = await context.services.store.unled.write(unit)  # a refused try has carried nothing out
    if isinstance(counted, Attempt):
        return counted
    seconds = math.ceil(counted)
    raise TooManyRequests(f"too many failed attempts: try again in {seconds} s", seconds)


async def succeeded(tx: Tx, attempt: Attempt) -> None:
    """The account starts afresh. The address does not: somebody with one account must not buy guesses at others with it."""
    for key in attempt.keys:
        if key == attempt.account:
            await attempts.clear(tx, key)
        else:
            await attempts.take_back(tx, key, attempt.before.get(key))


async def undecided(tx: Tx, attempt: Attempt) -> None:
    """Neither a failure nor a way in: right so far, but a code is to follow."""
    for key in attempt.keys:
        await attempts.take_back(tx, key, attempt.before.get(key))


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()
