"""Calls that may be sent twice: with an `Idempotency-Key`, a mutation is carried out once and answered alike each time.

The key is claimed in the transaction that changes something, so there is no moment at which a crash leaves the change without the
claim. What was refused changed nothing and is not kept: once the reason is gone, the same key works. Answers may hold what is shown
once (a token), so they rest sealed.

* A repeat while the first call runs here waits for it; on another replica it waits for the answer to appear, a few seconds.
* A claim that stays without an answer says that a coordinator was lost between the two: CONFLICT, because neither doing it again
  nor inventing an answer would be right.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import structlog

from coordinator.doors.outcome import Outcome
from coordinator.errors import BadRequest, Conflict
from coordinator.procedures.context import Caller
from coordinator.procedures.table import Procedure
from coordinator.store import rekey, repeats
from coordinator.store.database import Store, Tx
from coordinator.store.errors import StoreError
from coordinator.store.repeats import RepeatRecord
from coordinator.store.vault import Vault, VaultError
from shared.kit.clock import Clock

REPLAYED = {"Idempotent-Replayed": "true"}
WAIT_SECONDS = 10.0
LOOK_SECONDS = 0.2
_STATE = "ETag"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_encoder = msgspec.json.Encoder()

log = structlog.get_logger("doors")
Guard = Callable[[Tx], Awaitable[None]]


@dataclass(frozen=True)
class Claim:
    """`key`: of caller and header. `digest`: of what is asked for."""

    key: str
    digest: str
    procedure: Procedure

    async def take(self, tx: Tx) -> None:
        if not await repeats.claim(tx, self.key, self.digest):
            raise Taken


class Taken(Exception):
    """Another replica has carried the call out, or is about to. No DomainError: a procedure that deals with those must not take it
    for one of its own."""


def claim_of(header: str, place: int, caller: Caller, procedure: Procedure, asked: object) -> Claim:
    """`place`: of the call among those of its request. `asked`: all that decides what the call is about. Raises BadRequest."""
    if not _KEY.fullmatch(header):
        raise BadRequest("Idempotency-Key: must be 1 to 255 visible ASCII characters")
    key = sha256(_encoder.encode((caller.user_id, caller.credential_id, place, header))).hexdigest()
    return Claim(key, sha256(procedure.name.encode() + b"\n" + _encoder.encode(asked)).hexdigest(), procedure)


class Repeats:
    def __init__(self, store: Store, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._running: dict[str, asyncio.Event] = {}

    async def once(self, claim: Claim, perform: Callable[[Guard], Awaitable[Outcome]]) -> Outcome:
        """The first answer. `perform` is given what must run in the transaction of the call's first write."""
        await self._wait_here(claim)
        ended = self._running[claim.key] = asyncio.Event()
        try:
            known = await self._known(claim)
            if known is not None:
                return await self._answer_of(known, claim)
            try:
                outcome = await perform(claim.take)
            except Taken:
                return await self._wait_elsewhere(claim)
            await self._keep(claim, outcome)
            return outcome
        finally:
            del self._running[claim.key]
            ended.set()

    async def _wait_here(self, claim: Claim) -> None:
        until = self._clock.monotonic() + WAIT_SECONDS
        while (running := self._running.get(claim.key)) is not None:
            try:
                async with asyncio.timeout(until - self._clock.monotonic()):
                    await running.wait()
            except TimeoutError as error:
                raise Conflict("Idempotency-Key: the first call with it is still running; try again later") from error

    async def _known(self, claim: Claim) -> RepeatRecord | None:
        async with self._store.read() as conn:
            found = await repeats.get(conn, claim.key)
        return None if found is None or self._is_over(found) else found

    def _is_over(self, record: RepeatRecord) -> bool:
        return record.created_at < self._clock.wall() - repeats.KEPT_SECONDS

    async def _wait_elsewhere(self, claim: Claim) -> Outcome:
        async with self._store.read() as conn:
            found = await repeats.get(conn, claim.key)
        if found is None or self._is_over(found):
            raise Conflict("Idempotency-Key: it was used before and is forgotten in a moment; take another")
        return await self._answer_of(found, claim)

    async def _answer_of(self, record: RepeatRecord, claim: Claim) -> Outcome:
        """Waits for it when another replica may be about to give it. Raises Conflict."""
        if record.digest != claim.digest:
            raise Conflict("Idempotency-Key: it was used for a call with another input; take another")
        until = self._clock.wall() + WAIT_SECONDS
        while record.status is None and record.created_at > until - 2 * WAIT_SECONDS and self._clock.wall() < until:
            await asyncio.sleep(LOOK_SECONDS)
            record = await self._known(claim) or record
        if record.status is None:
            raise Conflict(
                "Idempotency-Key: the call with it was carried out, but its answer was lost: look what it did"
            )
        return self._opened(record, claim)

    def _opened(self, record: RepeatRecord, claim: Claim) -> Outcome:
        assert record.status is not None, "asked for before"
        try:
            body = self._vault.unwrap(_name(claim), record.body)
        except VaultError as error:
            log.warning("a kept answer cannot be opened", procedure=claim.procedure.name, reason=str(error))
            raise Conflict("Idempotency-Key: the call with it was carried out, but its answer was lost") from error
        headers = {name: value for name, value in record.headers.items() if name != _STATE}
        return Outcome(_typed(body, claim), record.status, {**headers, **REPLAYED}, record.headers.get(_STATE))

    async def _keep(self, claim: Claim, outcome: Outcome) -> None:
        """What was done is done: that its answer could not be kept is no reason to keep it from who waits for it."""
        body = self._vault.wrap(_name(claim), _encoder.encode(outcome.output))
        state = {} if outcome.state is None else {_STATE: outcome.state}

        async def unit(tx: Tx) -> None:
            record = RepeatRecord(
                key=claim.key,
                digest=claim.digest,
                status=outcome.status,
                headers={**outcome.headers, **state},
                body=body,
                created_at=tx.now,
            )
            await repeats.answer(tx, record)

        try:
            await self._store.write(unit)
        except StoreError as error:
            log.warning("an answer could not be kept", procedure=claim.procedure.name, reason=str(error))


def _name(claim: Claim) -> str:
    return rekey.repeat_name(claim.key)


def _typed(body: bytes, claim: Claim) -> object:
    """As the procedure returned it, for doors that look into it; as it was written where the type does not tell everything."""
    try:
        typed = msgspec.json.decode(body, type=claim.procedure.output)
    except msgspec.ValidationError:
        return msgspec.Raw(body)
    return typed if _encoder.encode(typed) == body else msgspec.Raw(body)
