"""How a connection ended, and when to try again: the closing table, the coordinator's own wish, and the backoff, in one place."""

from dataclasses import dataclass

from shared.kit.backoff import Backoff
from shared.wire.closing import CloseReason

LONGEST_WISH = 3600.0
"""Seconds a coordinator may ask an agent to stay away."""


@dataclass(frozen=True)
class Ending:
    """`reason` None: the transport failed, or never stood. `held_for`: seconds the session proper lasted. `after`: seconds the
    other side asked to wait."""

    reason: CloseReason | None
    message: str
    after: float = 0.0
    held_for: float = 0.0


def delay(ending: Ending, backoff: Backoff) -> float | None:
    """Seconds to wait before the next try, None when there is to be none.

    A wish is a floor below the jitter, not a replacement for it: a coordinator tells its whole fleet the same number.
    """
    backoff.settled(ending.held_for)
    wish = min(ending.after, LONGEST_WISH)
    match ending.reason.retry if ending.reason else "soon":
        case "never":
            return None
        case "slow":
            return wish + backoff.ceiling * (0.5 + 0.5 * backoff.draw())
        case "soon":
            return wish + backoff.next_delay()
