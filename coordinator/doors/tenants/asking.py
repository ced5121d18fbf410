"""One request to one address: its path, query or body as the procedure's input, and the procedure's answer as it came.

The path is looked at first, and like everything else only once the caller is known: an id that no thing can have is the same to
them as one that no thing has. What lies outside of the tenant, project and environment in the path is not found, whoever it belongs
to.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Request

from coordinator.doors import decode
from coordinator.doors.outcome import Outcome
from coordinator.doors.reception import Reception, Visit
from coordinator.doors.tenants.table import Fields, Route
from coordinator.errors import BadRequest, Forbidden, NotFound
from coordinator.procedures.context import Bounds
from coordinator.procedures.table import TABLE, Procedure
from shared.spec.container import Part

_ID = re.compile(r"[a-z]+_[A-Za-z0-9_-]{1,60}")
_CALLED = {"tenantId": "organizationId"}
"""A path's word → the procedures'."""
_FIELDS = {"cursor": "after"}
"""What a procedure calls a field → what it is called here."""
_SENTENCES = {"organization not found": "tenant not found"}


class Asking:
    """`own`: what the caller said beside the path; known once a call was made."""

    def __init__(self, reception: Reception, request: Request[Any, Any, Any], route: Route) -> None:
        path: dict[str, str] = request.path_params
        self.route = route
        self.request = request
        self.own: Part | None = None
        self.visit = Visit(request, bounds=_bounds(path))
        self._path = path
        self._reception = reception

    async def run(self, more: Callable[[Part], Fields] | None = None) -> Outcome:
        """`more`: fields beside the caller's, from what it said. Raises DomainError."""

        async def read(procedure: Procedure) -> msgspec.Struct:
            self._demand_session()
            for name, value in self._path.items():
                if not _ID.fullmatch(value):
                    raise NotFound(f"{name.removesuffix('Id')} not found")
            if self.own is None:
                self.own = await self._read()
            return _input(procedure, self._fields(procedure, self.own) | (more(self.own) if more else {}))

        try:
            done = await self._reception.run(self.visit, self.route.procedure, read)
        except BadRequest as error:
            raise error if self.own is None else BadRequest(_in_own_words(error.message)) from error
        except NotFound as error:
            raise NotFound(_SENTENCES.get(error.message, error.message)) from error
        if not isinstance(done.output, msgspec.Raw):
            return done
        typed = msgspec.json.decode(done.output, type=TABLE[self.route.procedure].output)
        return Outcome(typed, done.status, done.headers, done.state)

    def _demand_session(self) -> None:
        caller = self.visit.caller
        if self.route.session_only and (caller is None or caller.means != "session"):
            raise Forbidden("API tokens are managed in a signed-in session: no token may do it")

    async def _read(self) -> Part:
        query = list(self.request.query_params.multi_items())
        if self.route.method == "GET":
            own = decode.from_query(query, self.route.takes)
        elif query:
            raise BadRequest(f"{query[0][0]}: {self.request.method} takes its fields in the body, not in the query")
        else:
            own = decode.from_json(await self.request.body(), self.route.takes)
        assert isinstance(own, Part), "every input of this door is one"
        return own

    def _fields(self, procedure: Procedure, own: Part) -> Fields:
        known = {one.encode_name for one in msgspec.structs.fields(procedure.input)}
        path = {_CALLED.get(name, name): value for name, value in self._path.items()}
        fields = self.route.fill(own, self._path) | self.route.fixed
        if self.route.form == "stream" and (last := self.visit.header("last-event-id")):
            fields["cursor"] = (
                last  # a browser that comes back asks for the same address, and says in this header how far it got
            )
        return {name: value for name, value in path.items() if name in known} | fields


def _in_own_words(message: str) -> str:
    field, colon, rest = message.partition(":")
    return f"{_FIELDS[field]}:{rest}" if colon and field in _FIELDS else message


def _bounds(path: Mapping[str, str]) -> Bounds:
    return Bounds(path.get("tenantId"), path.get("projectId"), path.get("environmentId"))


def _input(procedure: Procedure, fields: Fields) -> msgspec.Struct:
    try:
        return msgspec.convert(fields, procedure.input)
    except msgspec.ValidationError as error:
        raise BadRequest(decode.sentence(str(error))) from error
