"""The one table of every API operation. Doors, documentation and clients are derived from it; adding an operation touches one file.

A procedure is a plain async function of (context, input). What it needs is declared beside it and enforced in one place, `call`:
`scope` finds out whose thing the input names (and that it exists), `access` says who may. A thing of another organisation is
not found, never forbidden.

Types are the documentation too: the input's and output's structs carry limits and descriptions in `msgspec.Meta`, the function's
docstring says what it does (its first sentence is the summary), `example` shows one input.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, assert_never, get_args, get_origin

import msgspec

from coordinator.core.permissions import Effect, Need, Question, Verdict, capped, decide
from coordinator.errors import Forbidden, NotFound
from coordinator.procedures import bounds
from coordinator.procedures.context import NOWHERE, Context, Scope
from coordinator.procedures.remembered import Concern
from shared.spec.container import Part

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Access = Need
"""`public`: anybody. `own`: any signed-in user, about itself. A role: at least that one in the organisation. A cluster
permission: `view`, `deploy` or `manage` on the cluster, by default from the role. `reviewer`: of the environment, or an admin."""


class Nothing(Part, frozen=True):
    """The input of procedures that take none, and the output of those that answer 204."""


E = TypeVar("E", bound=msgspec.Struct)


@dataclass(frozen=True)
class Stream(Generic[E]):
    """An output that goes on: the door frames the events as its protocol wants and ends the iterator when the reader leaves."""

    events: AsyncIterator[E]


Resolver = Callable[[Context, Any], Awaitable[Scope]]
Function = Callable[[Context, Any], Awaitable[Any]]
Concerns = Callable[[Any], tuple[Concern, ...]]


Kind = Literal["query", "mutation", "subscription"]
Limit = Literal["read", "write", "stream"]
"""Which of a caller's three budgets a call is paid from."""


@dataclass(frozen=True, eq=False)
class Procedure:
    """`status`: of a success. `rest`: the resource path of the REST door; `also`: others to the same procedure, where its input may
    name what it is about in more than one way. `output`: the type of the answer, `Nothing` for 204;
    `effect`: on what runs, which is what protected environments are about.
    `event`: that of the items of a stream, where the answer is or may be one. `session_only`: no token may call it, so that a
    leaked one cannot make others. `fresh`: performed and permitted anew each time, whatever idempotency
    key it is called with: its answer is not kept. `concerns`: what an answer is about, when the same answer may be given again
    until that changes; it depends on the input alone then, never on the caller. `example`: one input, in wire names."""

    name: str
    method: Method
    input: type[msgspec.Struct]
    output: Any
    event: type[msgspec.Struct] | None
    access: Access
    effect: Effect
    scope: Resolver | None
    status: int
    rest: str
    also: tuple[str, ...]
    session_only: bool
    fresh: bool
    concerns: Concerns | None
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
        return " ".join(self.description.split()).partition(". ")[0].removesuffix(".")


TABLE: dict[str, Procedure] = {}
_encoder = msgspec.json.Encoder()
F = TypeVar("F", bound=Function)


def procedure(
    name: str,
    method: Method,
    access: Access,
    scope: Resolver | None = None,
    *,
    rest: str,
    also: tuple[str, ...] = (),
    effect: Literal["declares", "deploys", "moves"] | None = None,
    created: bool = False,
    takes: type[msgspec.Struct] | None = None,
    session_only: bool = False,
    fresh: bool = False,
    concerns: Concerns | None = None,
    example: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Declare the decorated function. Its input is `takes`, else the type of its second parameter; its output the type it returns;
    its description its docstring."""

    def declare(function: F) -> F:
        assert name not in TABLE, f"{name} is declared twice"
        assert scope is not None or access in ("public", "own"), f"{name} must say whose thing it is about"
        assert concerns is None or (method == "GET" and scope is not None), (
            f"{name}: only reads of somebody's are remembered"
        )
        _, annotated = (hint for key, hint in function.__annotations__.items() if key != "return")
        output, event = _answers(function.__annotations__["return"])
        TABLE[name] = Procedure(
            name=name,
            method=method,
            input=takes or annotated,
            output=output,
            event=event,
            access=access,
            effect=effect or ("reads" if method == "GET" else "writes"),
            scope=scope,
            status=201 if created else 204 if output is Nothing and event is None else 200,
            rest=rest,
            also=also,
            session_only=session_only,
            fresh=fresh,
            concerns=concerns,
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
    """Run a procedure for a caller who may; its output, or that of an earlier call as `msgspec.Raw`. Raises DomainError."""
    concerns = procedure.concerns(data) if procedure.concerns else ()
    if concerns:
        return await _recall(procedure, context, data, concerns)
    await authorize(procedure, context, data)
    return await procedure.function(context, data)


async def _recall(
    procedure: Procedure, context: Context, data: msgspec.Struct, concerns: tuple[Concern, ...]
) -> msgspec.Raw:
    remembered = context.services.remembered
    key = (procedure.name, data)
    known = remembered.get(key)
    if known is None and (under_way := remembered.under_way(key)) is not None:
        await under_way.ended.wait()
        known = under_way if under_way.body else None  # it failed for its own caller: perhaps not for this one
    if known is not None and known.scope is not None:
        _judge(procedure, context, known.scope)
        context.next_cursor = known.next_cursor
        return known.body
    answer = remembered.begin(key, concerns)
    try:
        answer.scope = await authorize(procedure, context, data)
        answer.body = msgspec.Raw(_encoder.encode(await procedure.function(context, data)))
        answer.next_cursor = context.next_cursor
    except BaseException:
        remembered.drop(key, answer)
        raise
    remembered.keep(key, answer)
    return answer.body


async def authorize(procedure: Procedure, context: Context, data: msgspec.Struct) -> Scope:
    """Raises NotFound for what is not the caller's to see, Forbidden for what is not theirs to do. Leaves in the context what the
    decision was about. It is as of now: a change of rights while the procedure runs comes after it."""
    caller = context.caller
    assert procedure.access == "public" or caller is not None, "doors authenticate before they read the input"
    if procedure.session_only and context.user.means != "session":
        raise Forbidden(f"{procedure.name} needs a signed-in session: no token may call it")
    if caller is not None and not caller.account and procedure.access == "own" and procedure.effect != "reads":
        raise Forbidden(f"{procedure.name} is about the caller's own account, and this token is nobody's")
    scope = NOWHERE if procedure.scope is None else await procedure.scope(context, data)
    _judge(procedure, context, scope)
    return scope


def demand(context: Context, name: str, effect: Effect) -> None:
    """For a procedure that finds out on its way that it does more than it declares. Raises Forbidden."""
    _judge(replace(TABLE[name], effect=effect), context, context.scope)


def _judge(procedure: Procedure, context: Context, scope: Scope) -> None:
    verdict = decide(_question(procedure, context, scope))
    if verdict is Verdict.STRANGER or not bounds.holds(context.bounds, scope):
        raise NotFound(f"{scope.noun} not found")
    if verdict not in (Verdict.ALLOW, Verdict.WAIT):
        raise Forbidden(f"{procedure.name} {_why(verdict, procedure, context, scope)}")
    context.scope, context.record, context.cluster_id = scope, scope.record, scope.cluster_id
    context.waits = verdict is Verdict.WAIT


def _question(procedure: Procedure, context: Context, scope: Scope) -> Question:
    caller, guard = context.caller, scope.guard
    if caller is None:
        return Question(None, procedure.access, effect=procedure.effect)
    role = caller.roles.get(scope.organization_id)
    context.role = None if role is None else capped(role, caller.scope)
    return Question(
        role,
        procedure.access,
        None if scope.cluster_id is None else caller.grants.get(scope.cluster_id),
        caller.scope,
        procedure.effect,
        guard.protection if guard else "none",
        guard is not None and caller.user_id in guard.reviewers,
    )


def _why(verdict: Verdict, procedure: Procedure, context: Context, scope: Scope) -> str:
    """Completes "<procedure> …"."""
    name = scope.guard.name if scope.guard else ""
    match verdict:
        case Verdict.ROLE:
            return f"needs the role {procedure.access!r} or a higher one; your role here is {context.role}"
        case Verdict.CLUSTER:
            return f"needs the cluster permission {procedure.access!r}; your role here is {context.role}"
        case Verdict.REVIEWER:
            return f"needs a reviewer of the environment {name!r}, an admin or an owner"
        case Verdict.SCOPE:
            return f"is beyond the scope {context.user.scope!r} of this token"
        case Verdict.RESTRICTED:
            return (
                f"changes what runs in the environment {name!r}, which is restricted: ask a reviewer, an admin or an owner to do "
                "it, or deploy, which waits for their approval"
            )
        case Verdict.LOCKED:
            return f"is refused: the environment {name!r} is locked, and only owners and admins deploy there"
        case Verdict.ALLOW | Verdict.WAIT | Verdict.STRANGER:
            raise AssertionError("no refusal that explains itself")
        case never:
            assert_never(never)
