"""The one table of every API operation. Doors, documentation and clients are derived from it; adding an operation touches one file.

A procedure is a plain async function of (context, input). What it needs is declared beside it and enforced in one place, `call`:
`scope` finds out whose thing the input names (and that it exists), `access` says who may. A thing of another organisation is
not found, never forbidden.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from coordinator.core.permissions import ClusterPermission, Role, may
from coordinator.errors import Forbidden, NotFound
from coordinator.procedures.context import Context, Scope
from shared.spec.container import Part

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Access = Literal["public", "own"] | Role | ClusterPermission
"""`public`: anybody. `own`: any signed-in user, about itself. A role: at least that one in the organisation. A cluster
permission: `view`, `deploy` or `manage` on the cluster, by default from the role."""

_STATUS: dict[Method, int] = {"GET": 200, "POST": 200, "PATCH": 200, "DELETE": 204}


class Nothing(Part, frozen=True):
    """The input of procedures that take none, and the output of those that answer 204."""


@dataclass(frozen=True)
class Stream:
    """An output that goes on: the door frames the events as its protocol wants and ends the iterator when the reader leaves."""

    events: AsyncIterator[msgspec.Struct]


Resolver = Callable[[Context, Any], Awaitable[Scope]]
Function = Callable[[Context, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Procedure:
    """`status`: of a success. `rest`: the resource path of the REST door."""

    name: str
    method: Method
    input: type[msgspec.Struct]
    access: Access
    scope: Resolver | None
    status: int
    rest: str
    function: Function
    summary: str


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
) -> Callable[[F], F]:
    """Declare the decorated function. Its input is `takes`, else the type of its second parameter; its summary its docstring."""

    def declare(function: F) -> F:
        assert name not in TABLE, f"{name} is declared twice"
        assert scope is not None or access in ("public", "own"), f"{name} must say whose thing it is about"
        _, annotated = (hint for key, hint in function.__annotations__.items() if key != "return")
        TABLE[name] = Procedure(
            name=name,
            method=method,
            input=takes or annotated,
            access=access,
            scope=scope,
            status=201 if created else _STATUS[method],
            rest=rest,
            function=function,
            summary=(function.__doc__ or "").strip(),
        )
        return function

    return declare


async def call(procedure: Procedure, context: Context, data: msgspec.Struct) -> Any:
    """Run a procedure for a caller who may. Raises DomainError."""
    assert procedure.access == "public" or context.caller is not None, "doors authenticate before they read the input"
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
