"""The handshake and the lease as a protocol without I/O, for both roles.

Frames in, events and frames out, time as an argument; the shell owns the socket, the clock and the task. After `receive` or
`tick` the shell sends what `take_outgoing` returns, then acts on the events. What may arrive at which stage is the `match` in
`receive`; everything else ends the session with PROTOCOL_ERROR.

Both sides prove themselves over one transcript of both nonces and the version, so nothing can be replayed or relayed into
another session, with or without TLS around it.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from shared.kit.seal import SealError, SealingKey, SigningKey, seal, verify
from shared.spec.node import NodeFacts
from shared.wire import frames
from shared.wire.closing import CloseReason, by_code, by_transport
from shared.wire.frames import AgentFrame, Held, HubFrame
from shared.wire.join import JoinToken, fingerprint

HANDSHAKE_SECONDS = 10.0
_SHORTEST_PERIOD = 0.05
"""Of the lease, in seconds, whatever the coordinator asks: a period of nothing would be a busy loop."""


class Stage(Enum):
    OPENING = auto()
    """Agent: sent open, awaits the challenge. Hub: awaits open."""
    CHALLENGED = auto()
    """Hub only: awaits enroll or hello."""
    ENROLLING = auto()
    """Agent: awaits enrolled. Hub: the shell is checking the token."""
    GREETED = auto()
    """Agent: awaits ready. Hub: awaits hello after an enrolment."""
    ADMITTING = auto()
    """Hub only: the shell is looking the node up. A second hello meanwhile breaks the protocol."""
    READY = auto()
    CLOSED = auto()


@dataclass(frozen=True)
class Enrolled:
    """The coordinator gave this agent its identity: keep it on disk before anything else."""

    node_id: str


@dataclass(frozen=True)
class EnrollAsked:
    """Somebody presents a join token. The shell checks it, then calls `enrolled` or `close`."""

    token_id: str
    secret: bytes
    frame: frames.AgentEnroll


@dataclass(frozen=True)
class HelloAsked:
    """A node says who it is. The shell looks up its key, then calls `admit` or `close`."""

    frame: frames.AgentHello


@dataclass(frozen=True)
class Ready:
    frame: frames.HubReady


@dataclass(frozen=True)
class Received:
    """Any frame after the handshake that the lease does not take itself."""

    frame: AgentFrame | HubFrame


@dataclass(frozen=True)
class Closed:
    """Send what is outgoing, then close the socket with `reason.code`. `local`: this side decided."""

    reason: CloseReason
    message: str
    local: bool
    retry_after: float = 0.0


Event = Enrolled | EnrollAsked | HelloAsked | Ready | Received | Closed


_Out = TypeVar("_Out")


class _Session(Generic[_Out]):
    """What both roles share: stages, the outgoing queue, the deadline."""

    def __init__(self, now: float) -> None:
        self.stage = Stage.OPENING
        self.heard_at = now
        self.deadline = now + HANDSHAKE_SECONDS
        self._outgoing: list[_Out] = []

    def take_outgoing(self) -> list[_Out]:
        taken, self._outgoing = self._outgoing, []
        return taken

    def close(self, reason: CloseReason, message: str = "", retry_after: float = 0.0) -> Closed:
        self.stage = Stage.CLOSED
        return Closed(reason, message or reason.meaning, local=True, retry_after=retry_after)

    def _unexpected(self, frame: AgentFrame | HubFrame) -> Closed:
        return self.close(
            CloseReason.PROTOCOL_ERROR, f"{type(frame).__name__} is not expected while {self.stage.name.lower()}"
        )


@dataclass(frozen=True)
class AgentIdentity:
    """Who the agent is and whom it trusts. `node_id` None: not enrolled yet, `token` is needed. `hub_fingerprint` comes from the
    token at first and is kept with the identity. `epoch`: the highest ever seen, kept on disk."""

    signing: SigningKey
    sealing: SealingKey
    hub_fingerprint: bytes
    node_id: str | None = None
    token: JoinToken | None = None
    epoch: int = 0


@dataclass(frozen=True)
class Holding:
    """What the agent brings into a session."""

    facts: NodeFacts
    sequence: int | None = None
    held: list[Held] = field(default_factory=list)


class AgentSession(_Session[AgentFrame]):
    def __init__(self, identity: AgentIdentity, holding: Holding, nonce: bytes, version: str, now: float) -> None:
        super().__init__(now)
        self._identity = identity
        self._holding = holding
        self._nonce = nonce
        self._transcript = b""
        self._hub_sealing_key = b""
        self._renew_at = 0.0
        self._period = self._grace = 0.0
        self._grace_periods = 1.0
        self.epoch = identity.epoch
        self._outgoing.append(frames.AgentOpen(nonce, list(frames.VERSIONS), version))

    def receive(self, frame: HubFrame, now: float) -> list[Event]:
        if self.stage is Stage.CLOSED:
            return []
        self.heard_at = now
        if isinstance(frame, frames.HubGoaway):
            return [self._gone(frame)]
        match self.stage, frame:
            case Stage.OPENING, frames.HubChallenge():
                return self._challenged(frame)
            case Stage.ENROLLING, frames.HubEnrolled():
                self._greet(frame.node_id)
                return [Enrolled(frame.node_id)]
            case Stage.GREETED, frames.HubReady():
                return [self._ready(frame, now)]
            case Stage.READY, frames.LeaseAck():
                self._pace(frame.period_ms)
                return []
            case Stage.READY, (
                frames.ReportAck()
                | frames.AssignmentSet()
                | frames.AssignmentDelta()
                | frames.LogSubscribe()
                | frames.LogCredit()
                | frames.LogCancel()
            ):
                return [Received(frame)]
            case _:
                return [self._unexpected(frame)]

    def tick(self, now: float) -> list[Event]:
        """To be called at `deadline` at the latest: renews the lease, notices silence."""
        if self.stage is Stage.CLOSED:
            return []
        if self.stage is not Stage.READY:
            return [self.close(CloseReason.HANDSHAKE_TIMEOUT)] if now >= self.deadline else []
        if now >= self.heard_at + self._grace:
            return [self.close(CloseReason.LEASE_EXPIRED)]
        if now >= self._renew_at:
            self._outgoing.append(frames.LeaseRenew(int(now * 1000)))
            self._renew_at = now + self._period
        self.deadline = min(self._renew_at, self.heard_at + self._grace)
        return []

    def _challenged(self, frame: frames.HubChallenge) -> list[Event]:
        if frame.version not in frames.VERSIONS:
            return [self.close(CloseReason.NO_COMMON_VERSION)]
        if fingerprint(frame.signing_key) != self._identity.hub_fingerprint:
            return [self.close(CloseReason.UNTRUSTED_HUB)]
        self._transcript = _transcript(self._nonce, frame.nonce, frame.version)
        if not verify(frame.signing_key, frame.signature, _challenge_bytes(self._transcript, frame.sealing_key)):
            return [self.close(CloseReason.UNTRUSTED_HUB, "the coordinator's signature is wrong")]
        self._hub_sealing_key = frame.sealing_key
        if self._identity.node_id is not None:
            self._greet(self._identity.node_id)
        elif self._identity.token is not None:
            return self._enroll(self._identity.token)
        else:
            return [self.close(CloseReason.TOKEN_REFUSED, "this agent has neither an identity nor a join token")]
        return []

    def _enroll(self, token: JoinToken) -> list[Event]:
        signing, sealing = self._identity.signing, self._identity.sealing
        proof = _enroll_bytes(self._transcript, signing.public, sealing.public)
        try:
            sealed = seal(self._hub_sealing_key, token.secret, proof)
        except SealError:
            return [self.close(CloseReason.UNTRUSTED_HUB, "the coordinator's sealing key is none")]
        self._outgoing.append(
            frames.AgentEnroll(
                signing.public, sealing.public, token.token_id, sealed, signing.sign(proof), self._holding.facts
            )
        )
        self.stage = Stage.ENROLLING
        return []

    def _greet(self, node_id: str) -> None:
        sealing_key = self._identity.sealing.public
        signature = self._identity.signing.sign(_hello_bytes(self._transcript, node_id, sealing_key, self.epoch))
        self._outgoing.append(
            frames.AgentHello(
                node_id=node_id,
                sealing_key=sealing_key,
                signature=signature,
                epoch=self.epoch,
                facts=self._holding.facts,
                sequence=self._holding.sequence,
                capabilities=list(frames.CAPABILITIES),
                held=self._holding.held,
            )
        )
        self.stage = Stage.GREETED

    def _ready(self, frame: frames.HubReady, now: float) -> Event:
        if frame.epoch <= self.epoch:
            return self.close(CloseReason.STALE_EPOCH, f"offered epoch {frame.epoch}, already seen {self.epoch}")
        self.epoch = frame.epoch
        self._grace_periods = max(1.0, frame.grace_ms / max(1, frame.period_ms))
        self._pace(frame.period_ms)
        self._renew_at = now + self._period
        self.deadline = min(self._renew_at, now + self._grace)
        self.stage = Stage.READY
        return Ready(frame)

    def _pace(self, period_ms: int) -> None:
        """Each ack may change the period; the grace keeps its share of it, or a slower lease would end by itself."""
        self._period = max(_SHORTEST_PERIOD, period_ms / 1000)
        self._grace = self._period * self._grace_periods

    def _gone(self, frame: frames.HubGoaway) -> Closed:
        """An end for good is believed only of a coordinator that proved itself: the sealing key is kept once it has."""
        self.stage = Stage.CLOSED
        reason = (by_code if self._hub_sealing_key else by_transport)(frame.code) or CloseReason.GOING_AWAY
        return Closed(reason, frame.message, local=False, retry_after=frame.retry_after_ms / 1000)


class HubSession(_Session[HubFrame]):
    def __init__(self, signing: SigningKey, sealing: SealingKey, nonce: bytes, now: float) -> None:
        super().__init__(now)
        self._signing = signing
        self._sealing = sealing
        self._nonce = nonce
        self._transcript = b""
        self._node_id: str | None = None
        self._capabilities: list[str] = []
        self.agent_version = ""
        self.period = self.grace = 0.0

    def receive(self, frame: AgentFrame, now: float) -> list[Event]:
        if self.stage is Stage.CLOSED:
            return []
        self.heard_at = now
        match self.stage, frame:
            case Stage.OPENING, frames.AgentOpen():
                return self._opened(frame)
            case Stage.CHALLENGED, frames.AgentEnroll():
                return [self._enroll_asked(frame)]
            case ((Stage.CHALLENGED | Stage.GREETED), frames.AgentHello()):
                return [self._hello_asked(frame)]
            case Stage.READY, frames.LeaseRenew():
                self._outgoing.append(frames.LeaseAck(frame.sent_ms, int(self.period * 1000)))
                return []
            case Stage.READY, (
                frames.InstanceReports()
                | frames.AssignmentNeed()
                | frames.AssignmentAck()
                | frames.NodeStatus()
                | frames.MetricsSample()
                | frames.LogChunk()
                | frames.LogEnd()
            ):
                return [Received(frame)]
            case _:
                return [self._unexpected(frame)]

    def tick(self, now: float) -> list[Event]:
        if self.stage is Stage.CLOSED:
            return []
        if self.stage is not Stage.READY:
            return [self.close(CloseReason.HANDSHAKE_TIMEOUT)] if now >= self.deadline else []
        self.deadline = self.heard_at + self.grace
        return [self.close(CloseReason.LEASE_EXPIRED)] if now >= self.deadline else []

    def enrolled(self, node_id: str) -> None:
        """The token was good: tell the agent who it is; its hello follows."""
        assert self.stage is Stage.ENROLLING
        self._node_id = node_id
        self._outgoing.append(frames.HubEnrolled(node_id))
        self.stage = Stage.GREETED

    def proves(self, hello: frames.AgentHello, signing_key: bytes) -> bool:
        """Whether the hello was signed, for this very session, by the key on record."""
        message = _hello_bytes(self._transcript, hello.node_id, hello.sealing_key, hello.epoch)
        return verify(signing_key, hello.signature, message)

    def admit(self, epoch: int, sequence: int, period: float, grace: float, now: float, server_time: float) -> None:
        """Begin the session proper. Seconds; the caller has checked `proves` and stored the epoch."""
        self.period, self.grace = period, grace
        self.deadline = now + grace
        self.stage = Stage.READY
        self._outgoing.append(
            frames.HubReady(
                epoch=epoch,
                period_ms=int(period * 1000),
                grace_ms=int(grace * 1000),
                sequence=sequence,
                server_time=server_time,
                capabilities=self._capabilities,
            )
        )

    def close(self, reason: CloseReason, message: str = "", retry_after: float = 0.0) -> Closed:
        """Also tells the agent, by a goaway before the close: proxies lose close codes and texts."""
        closed = super().close(reason, message, retry_after)
        self._outgoing.append(frames.HubGoaway(reason.code, closed.message[:2048], int(retry_after * 1000)))
        return closed

    def _opened(self, frame: frames.AgentOpen) -> list[Event]:
        common = set(frame.versions) & set(frames.VERSIONS)
        if not common:
            offered = ", ".join(map(str, sorted(frame.versions)))
            return [
                self.close(CloseReason.NO_COMMON_VERSION, f"the agent speaks {offered}, not {max(frames.VERSIONS)}")
            ]
        version = max(common)
        self.agent_version = frame.agent_version
        self._transcript = _transcript(frame.nonce, self._nonce, version)
        signature = self._signing.sign(_challenge_bytes(self._transcript, self._sealing.public))
        self._outgoing.append(
            frames.HubChallenge(self._nonce, version, self._signing.public, self._sealing.public, signature)
        )
        self.stage = Stage.CHALLENGED
        return []

    def _enroll_asked(self, frame: frames.AgentEnroll) -> Event:
        proof = _enroll_bytes(self._transcript, frame.signing_key, frame.sealing_key)
        if not verify(frame.signing_key, frame.signature, proof):
            return self.close(CloseReason.BAD_SIGNATURE)
        try:
            secret = self._sealing.open(frame.sealed_secret, proof)
        except SealError:
            return self.close(
                CloseReason.TOKEN_REFUSED, "the join token's secret does not open: was it made by this coordinator?"
            )
        self.stage = Stage.ENROLLING
        return EnrollAsked(frame.token_id, secret, frame)

    def _hello_asked(self, frame: frames.AgentHello) -> Event:
        if self._node_id not in (None, frame.node_id):
            return self.close(CloseReason.BAD_SIGNATURE, "hello names another node than the one just enrolled")
        self._capabilities = [name for name in frames.CAPABILITIES if name in frame.capabilities]
        self.stage = Stage.ADMITTING
        return HelloAsked(frame)


def _transcript(agent_nonce: bytes, hub_nonce: bytes, version: int) -> bytes:
    return hashlib.sha256(b"argosy channel" + agent_nonce + hub_nonce + version.to_bytes(4)).digest()


def _challenge_bytes(transcript: bytes, sealing_key: bytes) -> bytes:
    return b"challenge" + transcript + sealing_key


def _enroll_bytes(transcript: bytes, signing_key: bytes, sealing_key: bytes) -> bytes:
    return b"enroll" + transcript + signing_key + sealing_key


def _hello_bytes(transcript: bytes, node_id: str, sealing_key: bytes, epoch: int) -> bytes:
    return b"hello" + transcript + sealing_key + epoch.to_bytes(8) + node_id.encode()
