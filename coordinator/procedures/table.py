"""The one table of every API operation. Doors, documentation and clients are derived from it; adding an operation touches one file.

A procedure is a plain async function of (context, input). What it needs is declared beside it and enforced in one place, `call`:
`scope` finds out whose thing the input names (and that it exists), `access` says who may. A thing of another organisation is
not found, never forbidden.

Types are the documentation too: the input's and output's structs carry limits and descriptions in `msgspec.Meta`, the function's
docstring says what it does (its first sentence is the summary), `example` shows one input.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from coordinator.core.permissions import ClusterPermission, Role, may
from coordinator.errors import Forbidden, NotFound
from coordinator.procedures.context import Context, Scope
from shared.spec.container import Part

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Access = Literal["public", "own"] | Role | ClusterPermission
"""`public`: anybody. `own`: any signed-in user, about itself. A role: at least that one in the organisation. A cluster
permission: `view`, `deploy` or `manage` on the cluster, by default from the role."""


class Nothing(Part, frozen=True):
    """The input of procedures that take none, and the output of those that answer 204."""


E = TypeVar("E", bound=msgspec.Struct)


@dataclass(frozen=True)
class Stream(Generic[E]):
    """An output that goes on: the door frames the events as its protocol wants and ends the iterator when the reader leaves."""

    events: AsyncIterator[E]


Resolver = Callable[[Context, Any], Awaitable[Scope]]
Function = Callable[[Context, Any], Awaitable[Any]]


Kind = Literal["query", "mutation", "subscription"]
Limit = Literal["read", "write", "stream"]
"""Which of a caller's three budgets a call is paid from."""


@dataclass(frozen=True)
class Procedure:
    """`status`: of a success. `rest`: the resource path of the REST door. `output`: the type of the answer, `Nothing` for 204;
    `event`: that of the items of a stream, where the answer is or may be one. `session_only`: no token may call it, so that a
    leaked one cannot make others. `example`: one input, in wire names."""

    name: str
    method: Method
    input: type[msgspec.Struct]
    output: Any
    event: type[msgspec.Struct] | None
    access: Access
    scope: Resolver | None
    status: int
    rest: str
    session_only: bool
    function: Function
    description: str
    example: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        if self.output is Nothing and self.event is not None:
            return "subscription"
        return "query" if self.method == "GET" else "mutation"

    @property
    def summary(self) -> str:
        return self.description.partition(". ")[0].removesuffix(".")


TABLE: dict[str, Procedure] = {}
F = TypeVar("F", bound=Function)


def procedure(
    name: str,
    method: Method,
    access: Access,
    scope: Resolver | None = None,
    *,
    rest: str,
    created: bool = False,
    takes: type[msgspec.Struct] | None = None,
    session_only: bool = False,
    example: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Declare the decorated function. Its input is `takes`, else the type of its second parameter; its output the type it returns;
    its description its docstring."""

    def declare(function: F) -> F:
        assert name not in TABLE, f"{name} is declared twice"
        assert scope is not None or access in ("public", "own"), f"{name} must say whose thing it is about"
        _, annotated = (hint for key, hint in function.__annotations__.items() if key != "return")
        output, event = _answers(function.__annotations__["return"])
        TABLE[name] = Procedure(
            name=name,
            method=method,
            input=takes or annotated,
            output=output,
            event=event,
            access=access,
            scope=scope,
            status=201 if created else 204 if output is Nothing and event is None else 200,
            rest=rest,
            session_only=session_only,
            function=function,
            description=inspect.cleandoc(function.__doc__ or ""),
            example=example or {},
        )
        return function

    return declare


def _answers(returned: Any) -> tuple[Any, type[msgspec.Struct] | None]:
    """`View`, `list[View]`, `Stream[Event]`, or an answer that may be either: `list[View] | Stream[Event]`."""
    parts = get_args(returned) if get_origin(returned) in (Union, UnionType) else (returned,)
    streams = [get_args(part)[0] for part in parts if get_origin(part) is Stream]
    plain = [part for part in parts if get_origin(part) is not Stream]
    assert max(len(streams), len(plain)) == 1, f"{returned}: one kind of answer, perhaps also as a stream"
    return (plain[0] if plain else Nothing), (streams[0] if streams else None)


async def call(procedure: Procedure, context: Context, data: msgspec.Struct) -> Any:
    """Run a procedure for a caller who may. Raises DomainError."""
    assert procedure.access == "public" or context.caller is not None, "doors authenticate before they read the input"
    if procedure.session_only and context.user.means != "session":
        raise Forbidden(f"{procedure.name} needs a signed-in session: no token may call it")
    if procedure.scope is not None:
        await _authorize(procedure, context, data)
    return await procedure.function(context, data)


async def _authorize(procedure: Procedure, context: Context, data: msgspec.Struct) -> None:
    assert procedure.scope is not None
    assert context.caller is not None
    scope = await procedure.scope(context, data)
    context.record, context.cluster_id = scope.record, scope.cluster_id
    role = context.caller.roles.get(scope.organization_id)
    if role is None:
        raise NotFound(f"{scope.noun} not found")
    grant = context.caller.grants.get(scope.cluster_id) if scope.cluster_id is not None else None
    if not may(role, procedure.access, grant):
        raise Forbidden(f"{procedure.name} needs {_needed(procedure.access)}; your role here is {role}")


def _needed(access: Access) -> str:
    if access in ("view", "deploy", "manage"):
        return f"the cluster permission {access!r}"
    return f"the role {access!r} or a higher one"
