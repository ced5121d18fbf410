"""Who may do what: one table, computed once, so that a decision is a look-up and the whole policy can be printed.

Organisation roles are ranked; billing stands beside them and sees neither clusters nor code. Cluster permissions are ranked too
and follow from the role unless a grant for that user and cluster says otherwise, in either direction. A grant is nothing
without a role: whoever has left the organisation has left its clusters.
"""

from itertools import product
from typing import Literal, get_args

Role = Literal["owner", "admin", "developer", "viewer", "billing"]
ClusterPermission = Literal["view", "deploy", "manage"]
TokenScope = Literal["read", "deploy", "admin"]
"""How much of its owner's rights a token carries: reads only, what a developer may, or all of it."""
Need = Literal["public", "own"] | Role | ClusterPermission

RANKED: tuple[Role, ...] = ("viewer", "developer", "admin", "owner")
PERMISSIONS: tuple[ClusterPermission, ...] = get_args(ClusterPermission)
DEFAULTS: dict[Role, ClusterPermission | None] = {
    "owner": "manage",
    "admin": "manage",
    "developer": "deploy",
    "viewer": "view",
    "billing": None,
}


def _may(role: Role | None, need: Need, grant: ClusterPermission | None) -> bool:
    match need:
        case "public" | "own":
            return True
        case "view" | "deploy" | "manage":
            held = None if role is None else grant or DEFAULTS[role]
            return held is not None and PERMISSIONS.index(held) >= PERMISSIONS.index(need)
        case "billing":
            return role in ("billing", "admin", "owner")
        case "viewer" | "developer" | "admin" | "owner":
            return role in RANKED and RANKED.index(role) >= RANKED.index(need)


_NEEDS: tuple[Need, ...] = ("public", "own", *get_args(Role), *PERMISSIONS)
_TABLE: dict[tuple[Role | None, Need, ClusterPermission | None], bool] = {
    (role, need, grant): _may(role, need, grant)
    for role, need, grant in product((None, *get_args(Role)), _NEEDS, (None, *PERMISSIONS))
}


def may(role: Role | None, need: Need, grant: ClusterPermission | None = None) -> bool:
    """Whether a signed-in user with this role in the organisation, and perhaps a grant on the cluster in question, has what is
    needed. `role` None: not a member."""
    return _TABLE[role, need, grant]
