"""Why something is not as desired: a code for programs, a sentence for people, and when the next try is."""

from typing import Final

from msgspec import Struct

# Before a node has it
WAITING_PREVIOUS: Final = "waiting_previous"
"""The slot's last instance failed; the next is made after a backoff."""
UNPLACED: Final = "unplaced"
"""No node admits it; the sentence counts the nodes by what they lack."""

# On the node, before it runs: these end in `rejected` unless they are worth another try
IMAGE_NOT_FOUND: Final = "image_not_found"
IMAGE_DENIED: Final = "image_denied"
IMAGE_PULL_FAILED: Final = "image_pull_failed"
"""Temporary: the registry could not be reached or answered with an error; the node tries again."""
DISK_FULL: Final = "disk_full"
PORT_TAKEN: Final = "port_taken"
POLICY_REFUSED: Final = "policy_refused"
"""The node's own policy file forbids it, whatever its coordinator asks."""
INVALID: Final = "invalid"
"""The engine refuses the declaration itself."""
SECRETS_UNREADABLE: Final = "secrets_unreadable"
ENGINE_UNREACHABLE: Final = "engine_unreachable"
ENGINE_ERROR: Final = "engine_error"

# While it should run
EXITED: Final = "exited"
OUT_OF_MEMORY: Final = "out_of_memory"
COMPLETED: Final = "completed"
"""Ended by itself with code 0, and its restart policy leaves it so."""
UNHEALTHY: Final = "unhealthy"
STARTING: Final = "starting"
"""Runs, and its health check has not passed yet."""
REMOVED_OUTSIDE: Final = "removed_outside"
"""Somebody removed its engine container by other means than Argosy."""
STOPPED: Final = "stopped"
NODE_LOST: Final = "node_lost"
NODE_REMOVED: Final = "node_removed"

# While a node is drained
DRAINING: Final = "draining"
"""Goes on by itself."""
DRAIN_BLOCKED: Final = "drain_blocked"
"""Somebody has to act: what is left cannot move."""

# A whole container
DEPLOYING: Final = "deploying"
"""On its way, nothing is wrong."""
WAITING_APPROVAL: Final = "waiting_approval"
"""Nothing happens until a reviewer of its environment has decided."""
DEPLOYMENT_FAILED: Final = "deployment_failed"
REMOVING: Final = "removing"


class Reason(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """`next_at`: Unix seconds of the next try by itself, None when nothing happens until somebody acts."""

    code: str
    message: str
    next_at: float | None = None
