"""Why a session ends: one table of code → name and what the agent does next. Codes lie in the range RFC 6455 leaves to
applications (4000–4999)."""

from enum import Enum
from typing import Literal, NamedTuple

Retry = Literal["soon", "slow", "never"]
"""`soon`: the ordinary backoff. `slow`: at the backoff's ceiling, an operator probably has to act first. `never`: the agent
stops and says why; trying again cannot help."""


class Closing(NamedTuple):
    code: int
    retry: Retry
    meaning: str


class CloseReason(Enum):
    GOING_AWAY = Closing(4000, "soon", "the other side is stopping or restarting")
    SUPERSEDED = Closing(4001, "slow", "a newer session of this node took its place; is the agent running twice?")
    REVOKED = Closing(4002, "never", "the node was removed from its cluster")
    UNKNOWN_NODE = Closing(4003, "slow", "the coordinator does not know this node")
    BAD_SIGNATURE = Closing(4004, "slow", "the signature does not belong to the key on record")
    UNTRUSTED_HUB = Closing(4005, "slow", "the coordinator's key is not the pinned one")
    TOKEN_REFUSED = Closing(4006, "never", "the join token was refused")
    NO_COMMON_VERSION = Closing(4007, "slow", "no protocol version in common; upgrade the older side")
    PROTOCOL_ERROR = Closing(4008, "soon", "the other side broke the protocol")
    STALE_EPOCH = Closing(4009, "slow", "the session's epoch is older than one already seen")
    LEASE_EXPIRED = Closing(4010, "soon", "nothing was heard for the whole grace period")
    OVERLOADED = Closing(4011, "soon", "the coordinator takes no more sessions for now")
    HANDSHAKE_TIMEOUT = Closing(4012, "soon", "the handshake was not finished in time")
    TOO_SLOW = Closing(4013, "soon", "the other side does not read what is sent to it")

    @property
    def code(self) -> int:
        return self.value.code

    @property
    def retry(self) -> Retry:
        return self.value.retry

    @property
    def meaning(self) -> str:
        return self.value.meaning


_BY_CODE = {reason.code: reason for reason in CloseReason}


def by_code(code: int | None) -> CloseReason | None:
    """The reason behind a websocket close code; None for the transport's own codes and for those of newer versions."""
    return _BY_CODE.get(code) if code is not None else None


def by_transport(code: int | None) -> CloseReason | None:
    """As `by_code`, of what proves nothing about its sender: whoever answers a dial, or stands in its way, can close with any
    code, and must not end an agent for good by it."""
    reason = by_code(code)
    return CloseReason.UNTRUSTED_HUB if reason is not None and reason.retry == "never" else reason
