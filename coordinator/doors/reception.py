"""What every door does with a call: who is it, may it be made now, has it been made before, and only then the procedure.

A door turns its protocol into a `Visit` (what one HTTP request says about all calls in it) and one `Call` per procedure; it gets an
`Outcome` or a DomainError, and writes either in its own envelope.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Request

from coordinator.doors.auth import Authenticator
from coordinator.errors import NotFound
from coordinator.procedures.context import Caller, Context, Services
from coordinator.procedures.table import TABLE, Procedure, call

Read = Callable[[Procedure], Awaitable[msgspec.Struct]]
"""Reads a procedure's input from the request. Only called once the caller is known: strangers' bodies are not parsed."""


@dataclass
class Visit:
    """One HTTP request. `headers`: what the answer carries besides its body, whether it succeeds or not."""

    request: Request[Any, Any, Any]
    headers: dict[str, str] = field(default_factory=dict)
    caller: Caller | None = None

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""


@dataclass(frozen=True)
class Outcome:
    """`output`: what the procedure returned, or a `table.Stream`."""

    output: Any
    status: int
    headers: dict[str, str]


class Reception:
    def __init__(self, services: Services, authenticator: Authenticator) -> None:
        self.services = services
        self._authenticator = authenticator

    async def run(self, visit: Visit, name: str, read: Read) -> Outcome:
        """Raises DomainError."""
        procedure = TABLE.get(name)
        if procedure is None:
            raise NotFound(f"there is no procedure {name}")
        if procedure.access != "public" and visit.caller is None:
            visit.caller = await self._authenticator.caller(visit.request.headers.get("authorization"))
        context = Context(services=self.services, caller=visit.caller, address=visit.address)
        output = await call(procedure, context, await read(procedure))
        headers = {} if context.next_cursor is None else {"X-Next-Cursor": context.next_cursor}
        return Outcome(output, procedure.status, headers)
