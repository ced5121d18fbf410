"""The calls of one request: all run at the same time, as those of tRPC's own server do, and each ends in an answer of its own.

They are admitted one after the other, though. The first call finds out who is calling for all of them, and what is counted against
a limit is counted in the order of the batch.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from coordinator.doors import answers, decode, streams
from coordinator.doors.reception import Outcome, Reception, Visit
from coordinator.doors.trpc import wire
from coordinator.doors.trpc.asking import Asked, Inputs, check_method
from coordinator.doors.trpc.resuming import Resume
from coordinator.doors.trpc.wire import Refusal, WireCode
from coordinator.errors import BadRequest
from coordinator.procedures.table import Procedure, Stream


@dataclass(frozen=True)
class Answer:
    """`body`: `{"result":…}` or `{"error":…}`."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    code: WireCode
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    def answer(self, path: str | None) -> Answer:
        return Answer(wire.status(self.code), wire.error(self.code, self.message, path), self.headers)

    def shape(self, path: str | None) -> bytes:
        return wire.shape(self.code, self.message, path)


class Calls:
    def __init__(self, reception: Reception, visit: Visit, asked: Asked) -> None:
        self._reception = reception
        self._visit = visit
        self._asked = asked
        self._inputs = Inputs(visit.request, asked.is_batch)

    def start(self) -> list[asyncio.Task[Answer]]:
        """One task for each call. They do not fail; they go on when nobody waits for them any more, so that a mutation whose
        caller has left is not torn apart."""
        tasks: list[asyncio.Task[Answer]] = []
        turn = asyncio.Event()
        turn.set()
        for index in range(len(self._asked.paths)):
            next_turn = asyncio.Event()
            task = asyncio.create_task(self._answer(index, turn, next_turn))
            _running.add(task)
            task.add_done_callback(_running.discard)
            tasks.append(task)
            turn = next_turn
        return tasks

    async def run(self, index: int, admitted: asyncio.Event, resume: Resume | None = None) -> Outcome:
        """Sets `admitted` as soon as the caller is known and the request read. Raises Refusal, or what the procedure raises."""
        path = self._asked.paths[index]
        check_method(self._visit.request.method, path)
        if self._asked.kind == "subscription" and self._asked.is_batch:
            raise Refusal("BAD_REQUEST", f"{path}: subscriptions are not batched: use httpSubscriptionLink")

        async def read(procedure: Procedure) -> msgspec.Struct:
            raw = await self._inputs.of(index)
            admitted.set()
            return decode.from_json(resume.into(raw) if resume else raw, procedure.input)

        return await self._reception.run(self._visit, path, read)

    async def _answer(self, index: int, turn: asyncio.Event, next_turn: asyncio.Event) -> Answer:
        path = self._asked.paths[index]
        try:
            await turn.wait()
            outcome = await _finite(path, await self.run(index, next_turn))
            return Answer(200, _body(outcome), outcome.headers)
        except Exception as error:  # of one call among others: it is that call's answer, and logged as such
            return failure(self._visit, error).answer(path)
        finally:
            next_turn.set()


_running: set[asyncio.Task[Answer]] = set()
"""The event loop itself does not keep tasks alive."""


def failure(visit: Visit, error: Exception) -> Failure:
    if isinstance(error, Refusal):
        return Failure(error.code, error.message, error.headers)
    code, message = answers.told(visit.request.url.path, error)
    return Failure(code, message, {"WWW-Authenticate": "Bearer"} if code == "UNAUTHORIZED" else {})


async def arriving(tasks: list[asyncio.Task[Answer]]) -> AsyncIterator[tuple[int, Answer] | None]:
    """The answers with their indices, as they come, and None whenever none came for a while."""
    waiting = {task: index for index, task in enumerate(tasks)}
    while waiting:
        done, _ = await asyncio.wait(waiting, timeout=streams.KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            yield None
        for task in sorted(done, key=waiting.__getitem__):
            yield waiting.pop(task), task.result()


async def _finite(path: str, outcome: Outcome) -> Outcome:
    """Raises BadRequest for an answer that goes on."""
    if isinstance(outcome.output, Stream):
        if hasattr(outcome.output.events, "aclose"):
            await outcome.output.events.aclose()
        raise BadRequest(f"{path}: with this input it goes on: subscribe to it instead (httpSubscriptionLink)")
    return outcome


def _body(outcome: Outcome) -> bytes:
    return wire.NO_RESULT if outcome.status == 204 else wire.result(outcome.output)
