"""Who may do what, against tables written by hand from the specification: every procedure × role × grant × protection.

Nothing here is derived from the code it judges. The tables say it the other way round as well: the code ranks roles and
permissions, these name them one by one.
"""

import ast
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

import coordinator
from coordinator.core.permissions import Question, Verdict, decide, every_question, may
from coordinator.errors import DomainError, Forbidden, NotFound
from coordinator.procedures import ROUTERS, table
from coordinator.procedures.context import Caller, Context, Scope
from coordinator.procedures.remembered import Concern, Remembered
from coordinator.procedures.table import TABLE, Nothing, Procedure, authorize
from coordinator.store.changes import Changes
from coordinator.store.projects import Guard
from tests.fakes.clock import FakeClock

for _router in ROUTERS:
    import_module(f"coordinator.procedures.{_router}")

NEEDS = {
    "public": "session.methods session.signIn session.signUp session.verify system.health system.procedures "
    "system.version",
    "own": "invitation.accept invitation.pending invitation.reject organization.all organization.create session.all "
    "session.revoke session.signOut session.start system.whoami user.confirmTotp user.createToken user.disableTotp "
    "user.enableTotp user.me user.revokeToken user.tokens user.update",
    "viewer": "cluster.all container.all container.deployment container.deployments container.logs container.one "
    "container.deploymentEvents container.releaseLogs container.releases container.stats environment.all environment.one "
    "environment.runtime log.drains log.query log.stream organization.one "
    "orgTeam.all project.all project.deployments project.one project.releases secret.all secret.versions",
    "developer": "environment.approvals environment.requestApproval registry.all registry.create registry.one "
    "registry.remove registry.test registry.update",
    "admin": "audit.all audit.one audit.verify cluster.create environment.create environment.remove environment.update "
    "invitation.all invitation.create invitation.resend invitation.revoke log.createDrain log.removeDrain log.testDrain "
    "log.updateDrain organization.update orgTeam.remove orgTeam.update project.create project.remove project.update "
    "secret.create secret.remove secret.reveal secret.update",
    "owner": "organization.remove",
    "view": "cluster.nodes cluster.one",
    "deploy": "container.cancelDeployment container.create container.deploy container.remove container.restart "
    "container.retryDeployment container.rollback container.scale container.start container.stop container.update "
    "environment.deploy",
    "manage": "cluster.addNode cluster.cordonNode cluster.drainNode cluster.grantAccess cluster.joinToken cluster.listAccess "
    "cluster.remove cluster.removeNode cluster.revokeAccess cluster.uncordonNode cluster.update",
    "reviewer": "environment.approveDeployment environment.rejectDeployment",
}
STARTS = {"create", "deploy", "restart", "retryDeployment", "rollback"}
MOVES = {"remove", "scale", "start", "stop"}
DECLARES = {"cancelDeployment", "update"}

ROLES = ("owner", "admin", "developer", "viewer", "billing", None)
ROLES_WITH = {
    "viewer": {"viewer", "developer", "admin", "owner"},
    "developer": {"developer", "admin", "owner"},
    "admin": {"admin", "owner"},
    "owner": {"owner"},
}
BY_DEFAULT = {
    "owner": {"view", "deploy", "manage"},
    "admin": {"view", "deploy", "manage"},
    "developer": {"view", "deploy"},
    "viewer": {"view"},
    "billing": set[str](),
}
GRANTED = {"view": {"view"}, "deploy": {"view", "deploy"}, "manage": {"view", "deploy", "manage"}}
Cell = tuple[str | None, str | None, str, bool]
"""Role, grant, protection, whether a reviewer."""


def need_of(name: str) -> str:
    return next(need for need, names in NEEDS.items() if name in names.split())


def expected(name: str, cell: Cell) -> str:
    role, grant, protection, reviewer = cell
    need = need_of(name)
    if need in ("public", "own"):
        return "allow"
    if role is None:
        return "not found"
    if need in ROLES_WITH:
        held = role in ROLES_WITH[need]
    elif need == "reviewer":
        held = role in ("owner", "admin") or (reviewer and role != "billing")
    else:
        held = need in (GRANTED[grant] if grant else BY_DEFAULT[role])
    return expected_where_protected(name, role, protection, reviewer) if held else "forbidden"


def expected_where_protected(name: str, role: str, protection: str, reviewer: bool) -> str:
    router, _, verb = name.partition(".")
    if protection == "none" or role in ("owner", "admin"):
        return "allow"
    if name == "environment.approveDeployment":
        return "forbidden" if protection == "locked" else "allow"
    if name == "environment.deploy":
        return "forbidden" if protection == "locked" else "wait"
    if router != "container" or verb not in STARTS | MOVES | DECLARES or protection == "locked":
        return "forbidden" if router == "container" and verb in STARTS | MOVES | DECLARES else "allow"
    if verb in STARTS:
        return "wait"
    return "allow" if verb in DECLARES or reviewer else "forbidden"


async def decided(procedure: Procedure, cell: Cell, scope: str = "admin") -> str:
    role, grant, protection, reviewer = cell
    caller = Caller(
        user_id="user_1",
        email="",
        roles=cast("Any", {} if role is None else {"org_1": role}),
        grants=cast("Any", {} if grant is None else {"cluster_1": grant}),
        means="session",
        scope=cast("Any", scope),
    )
    guard = Guard(
        environment_id="env_1",
        name="production",
        protection=cast("Any", protection),
        reviewers=("user_1",) if reviewer else (),
    )

    async def resolve(context: Context, data: Any) -> Scope:
        return Scope("org_1", "thing", cluster_id="cluster_1", guard=guard)

    context = Context(services=cast("Any", None), caller=caller)
    resolver = None if procedure.scope is None else resolve
    try:
        await authorize(replace(procedure, scope=resolver), context, Nothing())
    except NotFound:
        return "not found"
    except Forbidden:
        return "forbidden"
    return "wait" if context.waits else "allow"


def test_every_procedure_stands_in_exactly_one_row_of_the_specification() -> None:
    listed = [name for names in NEEDS.values() for name in names.split()]
    assert sorted(listed) == sorted(TABLE)
    assert {name: str(TABLE[name].access) for name in listed} == {name: need_of(name) for name in listed}


async def test_every_procedure_decides_as_specified_for_every_role_grant_and_protection() -> None:
    cells: list[Cell] = list(
        product(ROLES, (None, "view", "deploy", "manage"), ("none", "restricted", "locked"), (False, True))
    )
    wrong = [
        (procedure.name, cell, found, expected(procedure.name, cell))
        for procedure in TABLE.values()
        for cell in cells
        if (found := await decided(procedure, cell)) != expected(procedure.name, cell)
    ]
    assert wrong == []


async def test_a_token_that_reads_calls_nothing_but_queries_and_reads_as_a_viewer() -> None:
    for procedure in TABLE.values():
        found = await decided(procedure, ("owner", None, "none", False), "read")
        below_viewer = need_of(procedure.name) in ("public", "own", "viewer", "view")
        if procedure.method == "GET" or need_of(procedure.name) == "public":
            assert found == ("allow" if below_viewer else "forbidden"), procedure.name
        else:
            assert found == "forbidden", procedure.name


async def test_a_token_that_deploys_is_a_developer_whoever_owns_it() -> None:
    for procedure, protection in product(TABLE.values(), ("none", "restricted", "locked")):
        found = await decided(procedure, ("owner", None, protection, False), "deploy")
        if need_of(procedure.name) == "own":
            assert found == ("allow" if procedure.method == "GET" else "forbidden"), procedure.name
        else:
            as_developer = expected(procedure.name, ("developer", None, protection, False))
            assert found == as_developer, (procedure.name, protection)


def test_a_grant_is_nothing_without_membership_and_capped_by_the_tokens_scope() -> None:
    assert decide(Question(None, "view", "manage")) is Verdict.STRANGER
    assert decide(Question("viewer", "deploy", "manage", "read", "writes")) is Verdict.SCOPE
    assert decide(Question("viewer", "manage", "manage", "deploy", "writes")) is Verdict.SCOPE
    assert decide(Question("viewer", "manage", "manage", "admin", "writes")) is Verdict.ALLOW
    assert not may("admin", "manage", "view")


def test_billing_sees_what_is_its_own_and_neither_clusters_nor_code() -> None:
    assert all(may(role, "billing") for role in ("billing", "admin", "owner"))
    assert not may("developer", "billing")
    assert not may("billing", "viewer")
    assert not may("billing", "view")
    assert may("billing", "view", "view")


def test_whoever_could_do_it_with_another_token_is_told_so() -> None:
    assert decide(Question("owner", "admin", None, "deploy", "writes")) is Verdict.SCOPE
    assert decide(Question("viewer", "admin", None, "deploy", "writes")) is Verdict.ROLE
    assert decide(Question("owner", "deploy", None, "deploy", "deploys", "locked")) is Verdict.LOCKED


def test_more_rights_never_refuse_what_fewer_allow() -> None:
    """A narrower token, a lower role or a smaller grant is never the better one to have."""
    for question in every_question():
        if decide(question) is not Verdict.ALLOW or question.role in ("billing", None):
            continue
        stronger = [question._replace(scope="admin"), question._replace(role="owner"), question._replace(reviewer=True)]
        if question.grant is not None:
            stronger.append(question._replace(grant="manage"))
        assert all(decide(one) is Verdict.ALLOW for one in stronger), question


@pytest.mark.parametrize(
    ("protection", "name", "says"),
    [
        ("locked", "container.deploy", "the environment 'production' is locked"),
        ("restricted", "container.scale", "the environment 'production', which is restricted"),
    ],
)
async def test_a_refusal_names_the_environment(protection: str, name: str, says: str) -> None:
    guard = Guard(environment_id="env_1", name="production", protection=cast("Any", protection))

    async def resolve(context: Context, data: Any) -> Scope:
        return Scope("org_1", "container", guard=guard)

    caller = Caller("user_1", "", {"org_1": "developer"})
    with pytest.raises(Forbidden) as refused:
        await authorize(
            replace(TABLE[name], scope=resolve), Context(services=cast("Any", None), caller=caller), Nothing()
        )
    assert says in refused.value.message
    assert refused.value.message.startswith(name)


async def test_no_procedure_runs_without_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the decision taken away nothing can be called, whatever it needs."""

    def refuse(question: Question) -> Verdict:
        return Verdict.ROLE

    async def here(context: Context, data: Any) -> Scope:
        return Scope("org_1", "thing")

    async def run(context: Context, data: Any) -> None:
        raise AssertionError("ran")

    def about(data: Any) -> tuple[Concern, ...]:
        return (("node", None),)

    monkeypatch.setattr(table, "decide", refuse)
    caller = Caller("user_1", "", {"org_1": "owner"}, means="session")
    remembered = Remembered(Changes(), FakeClock())
    services = cast("Any", SimpleNamespace(remembered=remembered))
    for procedure in TABLE.values():
        mine = replace(procedure, function=run, scope=procedure.scope and here, concerns=procedure.concerns and about)
        with pytest.raises(DomainError):
            await table.call(mine, Context(services=services, caller=caller), Nothing())
        if procedure.concerns:  # nor is what somebody else was answered
            key = (procedure.name, Nothing())
            answer = remembered.begin(key, about(None))
            answer.scope, answer.body = Scope("org_1", "thing"), msgspec.Raw(b"{}")
            remembered.keep(key, answer)
            with pytest.raises(DomainError):
                await table.call(mine, Context(services=services, caller=caller), Nothing())


def test_every_door_calls_procedures_through_the_one_place_that_decides() -> None:
    """A procedure's function is reached in `table.call` alone, and `call` from the reception alone."""
    root = Path(coordinator.__file__).parent
    runs, calls = set(), set()
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        place = path.relative_to(root).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "function":
                runs.add(place)
            if isinstance(node, ast.ImportFrom) and node.module == "coordinator.procedures.table":
                calls |= {place for alias in node.names if alias.name == "call"}
    assert runs == {"procedures/table.py"}
    assert calls == {"doors/reception.py"}
