"""What every door does with a call, in this order: who is it, may it be made now, what does it ask, has it been made before, is it
about what its caller has seen, and only then the procedure.

A door turns its protocol into a `Visit` (what one HTTP request says about all calls in it) and runs one procedure after the other;
it gets an `Outcome` or a DomainError, and writes either in its own envelope. What must happen in the transaction of a change (the
claim on a key, the comparison with an ETag) leads the procedure's first write: no procedure has to know of it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from litestar import Request

from coordinator.doors import conditions, decode, repeats, stamps
from coordinator.doors.auth import Authenticator
from coordinator.doors.limits import Exceeded, Limiter, Pace
from coordinator.doors.outcome import Outcome
from coordinator.doors.repeats import Guard, Repeats
from coordinator.doors.watching import while_allowed
from coordinator.errors import NotFound, TooManyRequests, Unauthorized
from coordinator.procedures import records
from coordinator.procedures.context import ANYWHERE, Bounds, Caller, Context, Services
from coordinator.procedures.table import TABLE, Procedure, Stream, authorize, call
from coordinator.store.database import Tx

__all__ = ["Outcome", "Read", "Reception", "Visit"]

Read = Callable[[Procedure], Awaitable[msgspec.Struct]]
"""Reads a procedure's input from the request. Only called once the caller is known: strangers' bodies are not parsed."""


@dataclass
class Visit:
    """One HTTP request. `headers`: what the answer carries besides its body, whether it succeeds or not. `calls`: made so far.
    `bounds`: what the request's address says about where its things are."""

    request: Request[Any, Any, Any]
    headers: dict[str, str] = field(default_factory=dict)
    caller: Caller | None = None
    calls: int = 0
    bounds: Bounds = ANYWHERE

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    @property
    def credential(self) -> str:
        """What limits are counted by; empty for a stranger."""
        return "" if self.caller is None else self.caller.credential_id or self.caller.user_id

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)


class Reception:
    def __init__(self, services: Services, authenticator: Authenticator, limiter: Limiter) -> None:
        self.services = services
        self._authenticator = authenticator
        self._limiter = limiter
        self._repeats = Repeats(services.store, services.vault, services.clock)

    async def run(self, visit: Visit, name: str, read: Read) -> Outcome:
        """Raises DomainError."""
        place = visit.calls
        visit.calls += 1  # before anything is awaited: calls of a batch keep their order
        try:
            procedure = await self._admitted(visit, name)
            decode.check_type(visit.request)
            return await self._once(visit, place, procedure, await read(procedure))
        except TooManyRequests as error:
            stamps.remember(visit.request, error.quota if isinstance(error, Exceeded) else None, error.retry_after)
            raise

    async def admit(self, visit: Visit) -> Caller:
        """For what is read without being a procedure. Raises DomainError."""
        try:
            caller = await self.identify(visit)
            await self._pay(visit, "read")
        except Exceeded as error:
            stamps.remember(visit.request, error.quota, error.retry_after)
            raise
        return caller

    async def welcome(self, visit: Visit) -> Context:
        """For a browser on its way to a session, outside of any procedure. Raises TooManyRequests."""
        try:
            await self._pay(visit, "write")
        except Exceeded as error:
            stamps.remember(visit.request, error.quota, error.retry_after)
            raise
        browser = self._authenticator.browser(visit.request)
        return Context(services=self.services, caller=None, address=visit.address, browser=browser)

    async def identify(self, visit: Visit) -> Caller:
        """Raises Unauthorized, and TooManyRequests once a stranger has tried too often."""
        if visit.caller is None:
            try:
                visit.caller = await self._authenticator.caller(visit.request)
            except Unauthorized:
                await self._pay(visit, "read")
                raise
        return visit.caller

    async def _admitted(self, visit: Visit, name: str) -> Procedure:
        procedure = TABLE.get(name)
        if procedure is None:
            await self._pay(visit, "read")
            raise NotFound(f"there is no procedure {name}")
        if procedure.access != "public":
            await self.identify(visit)
        await self._pay(visit, "write" if procedure.kind == "mutation" else "read")
        if procedure.kind == "mutation":
            self._authenticator.cookies.protect(visit.request, visit.caller)
        return procedure

    async def _pay(self, visit: Visit, pace: Pace) -> None:
        quota = await self._limiter.admit(visit.credential, visit.address, pace)
        stamps.remember(visit.request, quota)

    async def _once(self, visit: Visit, place: int, procedure: Procedure, data: msgspec.Struct) -> Outcome:
        key = visit.header("idempotency-key")
        if key is None or visit.caller is None or procedure.kind != "mutation" or procedure.fresh:
            return await self._perform(visit, procedure, data)
        claim = repeats.claim_of(key, place, visit.caller, procedure, (visit.bounds, data))

        async def perform(guard: Guard) -> Outcome:
            return await self._perform(visit, procedure, data, guard)

        return await self._repeats.once(claim, perform)

    async def _perform(
        self, visit: Visit, procedure: Procedure, data: msgspec.Struct, claim: Guard | None = None
    ) -> Outcome:
        context = Context(
            services=self.services,
            caller=visit.caller,
            address=visit.address,
            last_event_id=visit.header("last-event-id") or "",
            browser=self._authenticator.browser(visit.request),
            bounds=visit.bounds,
        )
        guards = [] if claim is None else [claim]
        if procedure.kind == "mutation" and (if_match := visit.header("if-match")) is not None:
            guards.append(conditions.guard(procedure, context, if_match))
        if guards:
            context.services = replace(self.services, store=self.services.store.led_by(_all(guards)))
        output = await call(procedure, context, data)
        if context.browser.keeps is not None:
            stamps.keep_session(visit.request, self._authenticator.cookies.kept(context.browser.keeps))
        if isinstance(output, Stream):
            output = self._limiter.counted(
                visit.credential, visit.address, self._watched(visit, procedure, data, output)
            )
        headers = {} if context.next_cursor is None else {"X-Next-Cursor": context.next_cursor}
        return Outcome(output, procedure.status, headers, _state(procedure, context, output))

    def _watched(self, visit: Visit, procedure: Procedure, data: msgspec.Struct, stream: Stream[Any]) -> Stream[Any]:
        """A stream of a caller lasts as long as the caller may begin it."""
        if visit.caller is None:
            return stream

        async def check() -> None:
            caller = await self._authenticator.caller(visit.request)
            await authorize(procedure, Context(services=self.services, caller=caller, address=visit.address), data)

        return while_allowed(stream, self.services.store.changes, visit.caller.user_id, check)


def _all(guards: list[Guard]) -> Guard:
    async def first(tx: Tx) -> None:
        for guard in guards:
            await guard(tx)

    return first


def _state(procedure: Procedure, context: Context, output: object) -> str | None:
    """Of the one thing an answer shows. A change's answer shows a later state than its scope's record, and tells it only where it
    counts it itself."""
    if procedure.scope is None or not isinstance(output, msgspec.Struct | msgspec.Raw):
        return None
    generation = getattr(output, "generation", None)
    if isinstance(generation, int):
        return str(generation)
    return records.state(context.record) if procedure.kind == "query" and context.record is not None else None
