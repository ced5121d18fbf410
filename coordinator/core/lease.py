"""When silence becomes a statement about a node, and when it rather says something about ourselves.

A lease is renewed by anything heard. Silence of three heartbeat periods makes its node `lost`: a statement about our knowledge,
on which instances are replaced elsewhere. A connection that ends does not shorten it, because an agent that restarts must move
nothing. Two doubts come before the statement:

* Right after the coordinator's own start, or after it was held up itself (a suspended machine, a blocked loop), the time in which
  it could not have heard anybody does not count: everybody gets a fresh lease, after a start of double length.
* When at least 55 % of the nodes fall silent together, and at least three do, the coordinator suspects its own network, not them:
  they are `suspect` until three more graces of silence confirm it. Below three there is no crowd to speak of: in a cluster of one
  to three nodes the loss of one or two is what a loss looks like, and is acted on at once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

PERIODS_OF_GRACE = 3
SHORTEST_PERIOD, LONGEST_PERIOD = 2.0, 10.0
SMALL_FLEET, LARGE_FLEET = 1_000, 10_000
START_GRACES = 2
CONFIRMING_GRACES = 3
CROWD = 3
CROWD_SHARE = 0.55
QUIET_PERIODS = 1.6
"""Periods of silence after which a node counts as falling silent: when the first of a crowd runs out of its three, the others,
whose last heartbeats came up to one period later, are at two; a healthy one is never much above one."""
NEVER = float("inf")


class Standing(Enum):
    READY = auto()
    SUSPECT = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Lease:
    """`period`: what the node was told to keep. `expires_at`: when silence since `heard_at` is too long."""

    heard_at: float
    period: float
    expires_at: float
    standing: Standing = Standing.READY


@dataclass(frozen=True, slots=True)
class Beat:
    """Anything was heard. `period`: the heartbeat period in force from now on."""

    now: float
    period: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. `trusted`: whether silence may be believed (see `doubts_itself`)."""

    now: float
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Dropped:
    """The connection ended, in whatever way."""

    now: float


Input = Beat | Tick | Dropped


class Event(Enum):
    NODE_READY = auto()
    NODE_SUSPECT = auto()
    NODE_LOST = auto()


def period(nodes: int) -> float:
    """Seconds between heartbeats: the fleet's size decides, so that the coordinator hears about a thousand a second at most."""
    if nodes <= SMALL_FLEET:
        return SHORTEST_PERIOD
    share = min(1.0, (nodes - SMALL_FLEET) / (LARGE_FLEET - SMALL_FLEET))
    return SHORTEST_PERIOD + share * (LONGEST_PERIOD - SHORTEST_PERIOD)


def grant(now: float, period: float, *, graces: int = 1, lost: bool = False) -> Lease:
    """A lease for a node that was not heard yet, or not since this coordinator started. One recorded as lost stays so until it
    is heard."""
    if lost:
        return Lease(now, period, NEVER, Standing.LOST)
    return Lease(now, period, now + graces * _grace(period))


def step(lease: Lease, event: Input) -> tuple[Lease, tuple[Event, ...], float]:
    """The lease after the event, what that says about the node, and when to tick it next."""
    match event:
        case Beat(now, period):
            events = () if lease.standing is Standing.READY else (Event.NODE_READY,)
            # A late event of an earlier moment never takes back what is known since.
            heard = max(now, lease.heard_at)
            renewed = Lease(heard, period, max(heard + _grace(period), _unless_expired(lease)))
            return renewed, events, renewed.expires_at
        case Tick(now, trusted):
            return _tick(lease, now, trusted=trusted)
        case Dropped():
            return lease, (), lease.expires_at


def doubts_itself(leases: Collection[Lease], now: float) -> bool:
    """Whether so many nodes are falling silent together that it must be us. Those lost before are no witnesses."""
    alive = quiet = 0
    for lease in leases:
        if lease.standing is not Standing.LOST:
            alive += 1
            quiet += now - lease.heard_at > QUIET_PERIODS * lease.period
    return quiet >= CROWD and quiet >= CROWD_SHARE * alive


def pardon(leases: Mapping[str, Lease], now: float, absent: float) -> dict[str, Lease]:
    """The leases after the coordinator itself was held up for `absent` seconds, in which it could hear nobody: that time does
    not count."""
    return {
        node_id: lease
        if lease.standing is Standing.LOST
        else replace(lease, heard_at=min(now, lease.heard_at + absent), expires_at=lease.expires_at + absent)
        for node_id, lease in leases.items()
    }


def _tick(lease: Lease, now: float, *, trusted: bool) -> tuple[Lease, tuple[Event, ...], float]:
    if lease.standing is Standing.LOST:
        return lease, (), NEVER
    if now < lease.expires_at:
        return lease, (), lease.expires_at
    if lease.standing is Standing.READY and not trusted:
        confirmed_at = now + CONFIRMING_GRACES * _grace(lease.period)
        suspect = replace(lease, standing=Standing.SUSPECT, expires_at=confirmed_at)
        return suspect, (Event.NODE_SUSPECT,), confirmed_at
    return replace(lease, standing=Standing.LOST, expires_at=NEVER), (Event.NODE_LOST,), NEVER


def _grace(period: float) -> float:
    return PERIODS_OF_GRACE * period


def _unless_expired(lease: Lease) -> float:
    """A fresh, longer lease (after a start) is not shortened by the first beat; a suspect's or lost one's time is over."""
    return lease.expires_at if lease.standing is Standing.READY else 0.0
