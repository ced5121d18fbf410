"""Who may do what: one table over a closed set of questions, so that a decision is a look-up and the whole policy can be printed.
A row is computed when it is first asked for: there are 24,000, and an installation asks for a few dozen.

Organisation roles are ranked; billing stands beside them and sees neither clusters nor code. Cluster permissions are ranked too
and follow from the role unless a grant for that user and cluster says otherwise, in either direction. A grant is nothing
without a role: whoever has left the organisation has left its clusters.

A token carries at most its scope: `read` the queries of a viewer, `deploy` what a developer may, `admin` everything of its owner.
What a caller does to its own account or founds for itself is no developer's work, so only `admin` carries that beyond reading.

An environment may be protected. Owners and admins pass; of everybody else

| effect of a procedure | restricted | locked |
|---|---|---|
| reads; writes (nothing that runs or is deployed) | as ever | as ever |
| declares (what a later deployment brings, or lets one go on that was asked for) | as ever | refused |
| deploys (starts a deployment) | waits for a reviewer | refused |
| moves (changes what runs, without a deployment: scale, stop, start, remove) | reviewers only | refused |

so that nothing a reviewer would have stopped happens without one, and whoever reviews others is reviewed by others.
"""

from collections.abc import Iterator
from enum import Enum
from functools import cache
from itertools import product, starmap
from typing import Literal, NamedTuple, assert_never, get_args

from shared.spec.environment import Protection

Role = Literal["owner", "admin", "developer", "viewer", "billing"]
ClusterPermission = Literal["view", "deploy", "manage"]
TokenScope = Literal["read", "deploy", "admin"]
"""How much of its owner's rights a token carries: reads only, what a developer may, or all of it."""
Need = Literal["public", "own", "reviewer"] | Role | ClusterPermission
Effect = Literal["reads", "writes", "declares", "deploys", "moves"]

ROLES: tuple[Role, ...] = get_args(Role)
RANKED: tuple[Role, ...] = ("viewer", "developer", "admin", "owner")
PERMISSIONS: tuple[ClusterPermission, ...] = get_args(ClusterPermission)
DEFAULTS: dict[Role, ClusterPermission | None] = {
    "owner": "manage",
    "admin": "manage",
    "developer": "deploy",
    "viewer": "view",
    "billing": None,
}
_HIGHEST_ROLE: dict[TokenScope, Role] = {"read": "viewer", "deploy": "developer", "admin": "owner"}
_HIGHEST_PERMISSION: dict[TokenScope, ClusterPermission] = {"read": "view", "deploy": "deploy", "admin": "manage"}


class Verdict(Enum):
    """`WAIT`: yes, once somebody else agrees. The rest are refusals, by what stands against it."""

    ALLOW = "allow"
    WAIT = "wait"
    STRANGER = "not a member"
    ROLE = "the role is too low"
    CLUSTER = "the permission on the cluster is too low"
    REVIEWER = "not a reviewer"
    SCOPE = "the token's scope is too narrow"
    RESTRICTED = "the environment is restricted"
    LOCKED = "the environment is locked"


class Question(NamedTuple):
    """`role` None: not a member of the organisation. `grant`: on the cluster in question. `reviewer`: of the environment."""

    role: Role | None
    need: Need
    grant: ClusterPermission | None = None
    scope: TokenScope = "admin"
    effect: Effect = "reads"
    protection: Protection = "none"
    reviewer: bool = False


@cache
def decide(question: Question) -> Verdict:
    """Who could do it with another credential of theirs is told so; what an environment's protection says is told before that."""
    verdict = _judge(question)
    if question.scope == "admin" or verdict not in _LACKING:
        return verdict
    whole = _judge(question._replace(scope="admin"))
    return Verdict.SCOPE if whole in (Verdict.ALLOW, Verdict.WAIT) else whole


def may(role: Role | None, need: Need, grant: ClusterPermission | None = None, scope: TokenScope = "admin") -> bool:
    """Whether a member may read what needs `need`."""
    return decide(Question(role, need, grant, scope)) is Verdict.ALLOW


def capped(role: Role, scope: TokenScope) -> Role:
    """The role that a credential of `scope` carries. Billing is outside the ranks: its reads are what `read` is for."""
    highest = _HIGHEST_ROLE[scope]
    return role if role == "billing" or RANKED.index(role) <= RANKED.index(highest) else highest


def _judge(question: Question) -> Verdict:
    if question.need == "public":
        return Verdict.ALLOW
    if question.need == "own":
        return Verdict.ALLOW if question.scope == "admin" or question.effect == "reads" else Verdict.SCOPE
    if question.role is None:
        return Verdict.STRANGER
    if question.scope == "read" and question.effect != "reads":
        return Verdict.SCOPE
    role = capped(question.role, question.scope)
    refusal = _lack(role, question)
    return _protect(role, question) if refusal is None else refusal


def _lack(role: Role, question: Question) -> Verdict | None:
    """What is missing of the need itself; None when nothing is."""
    match question.need:
        case "view" | "deploy" | "manage":
            held = question.grant or DEFAULTS[question.role or role]
            enough = held is not None and _rank(held, question.scope) >= PERMISSIONS.index(question.need)
            return None if enough else Verdict.CLUSTER
        case "reviewer":
            named = question.reviewer and role != "billing"
            return None if named or role in ("owner", "admin") else Verdict.REVIEWER
        case "billing":
            return None if role in ("billing", "admin", "owner") else Verdict.ROLE
        case "viewer" | "developer" | "admin" | "owner":
            enough = role in RANKED and RANKED.index(role) >= RANKED.index(question.need)
            return None if enough else Verdict.ROLE
        case "public" | "own":
            return None
        case never:
            assert_never(never)


def _rank(held: ClusterPermission, scope: TokenScope) -> int:
    return min(PERMISSIONS.index(held), PERMISSIONS.index(_HIGHEST_PERMISSION[scope]))


def _protect(role: Role, question: Question) -> Verdict:
    if question.protection == "none" or role in ("owner", "admin"):
        return Verdict.ALLOW
    match question.effect:
        case "reads" | "writes":
            return Verdict.ALLOW
        case "declares" | "deploys" | "moves" if question.protection == "locked":
            return Verdict.LOCKED
        case "declares":
            return Verdict.ALLOW
        case "deploys":
            return Verdict.WAIT
        case "moves":
            return Verdict.ALLOW if question.reviewer else Verdict.RESTRICTED
        case never:
            assert_never(never)


NEEDS: tuple[Need, ...] = ("public", "own", "reviewer", *ROLES, *PERMISSIONS)
_LACKING = frozenset({Verdict.STRANGER, Verdict.ROLE, Verdict.CLUSTER, Verdict.REVIEWER, Verdict.SCOPE})


def every_question() -> Iterator[Question]:
    """The whole domain: what can be asked at all."""
    return starmap(
        Question,
        product(
            (None, *ROLES),
            NEEDS,
            (None, *PERMISSIONS),
            get_args(TokenScope),
            get_args(Effect),
            get_args(Protection),
            (False, True),
        ),
    )
