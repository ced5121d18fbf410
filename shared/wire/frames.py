"""Every frame on the channel. Frames are only ever added, never edited: `tests/golden/` holds one of each as bytes, and a change
is a new tag plus a capability. `AgentFrame` and `HubFrame` are separate unions, so a frame sent the wrong way does not decode.

Handshake (`session.py`): agent.open → hub.challenge → [agent.enroll → hub.enrolled] → agent.hello → hub.ready.
Sequence numbers count the changes of one node's assignment set; the epoch counts its sessions. Times: Unix seconds unless the
name says `_ms`. Limits on lengths are here so that the decoder, not the hub, refuses what is too large.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from shared.spec.instance import Assignment, InstanceReport
from shared.spec.node import HostSample, InstanceSample, NodeFacts

VERSIONS = (1,)
CAPABILITIES: tuple[str, ...] = ("logs",)

Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]
Sentence = Annotated[str, Meta(max_length=2048)]
Counter = Annotated[int, Meta(ge=0, le=2**62)]
Words = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=64)]


class Frame(Struct, frozen=True, tag_field="type", omit_defaults=True, forbid_unknown_fields=True):
    """Strict on fields, therefore additive: an unknown field is the sign of an edited frame."""


class HotFrame(Frame, frozen=True, gc=False):
    """Frames without references back: kept out of the cycle collector, which else walks one per node."""


# Agent → hub -----------------------------------------------------------------------------------------------------------------


class AgentOpen(Frame, frozen=True, tag="agent.open.v1"):
    nonce: Nonce
    versions: Annotated[list[int], Meta(min_length=1, max_length=16)]
    agent_version: Id


class AgentEnroll(Frame, frozen=True, tag="agent.enroll.v1"):
    """`sealed_secret`: the join token's secret, sealed to the coordinator's sealing key with the handshake as context, so that a
    proxy that ends TLS learns nothing it could use. `signature` proves the node holds `signing_key`."""

    signing_key: Key
    sealing_key: Key
    token_id: Id
    sealed_secret: Annotated[bytes, Meta(max_length=256)]
    signature: Signature
    facts: NodeFacts


class Held(Struct, frozen=True, gc=False, array_like=True):
    """An instance the agent holds, whether or not the coordinator still knows it."""

    instance_id: Id
    attempt: Counter
    phase: int


class AgentHello(Frame, frozen=True, tag="agent.hello.v1"):
    """`epoch`: the highest this agent ever saw. `sequence`: of the assignment set in its journal, None when it has none.
    `sealing_key` may have been rotated since the last session; the signature covers it."""

    node_id: Id
    sealing_key: Key
    signature: Signature
    epoch: Counter
    facts: NodeFacts
    sequence: Counter | None = None
    capabilities: Words = field(default_factory=list)
    held: Annotated[list[Held], Meta(max_length=10_000)] = field(default_factory=list)


class LeaseRenew(HotFrame, frozen=True, tag="lease.renew.v1"):
    """The heartbeat. `sent_ms` is the agent's own monotonic time, echoed so that it can measure the round trip."""

    sent_ms: Counter


class InstanceReports(Frame, frozen=True, tag="instance.report.v1"):
    """`batch` grows within a session and is acknowledged after the reports were stored."""

    batch: Counter
    reports: Annotated[list[InstanceReport], Meta(min_length=1, max_length=256)]


class AssignmentNeed(Frame, frozen=True, tag="assignment.need.v1"):
    """A delta did not apply to what the agent has: send the complete set."""

    have: Counter | None = None


class AssignmentAck(HotFrame, frozen=True, tag="assignment.ack.v1"):
    """The set up to `sequence` is in the agent's journal and will be converged to, with or without the coordinator."""

    sequence: Counter


class NodeStatus(Frame, frozen=True, tag="node.status.v1"):
    """Facts that changed: the engine's state, free disk, address."""

    facts: NodeFacts


class MetricsSample(Frame, frozen=True, tag="metrics.sample.v1"):
    host: HostSample
    instances: Annotated[list[InstanceSample], Meta(max_length=2000)] = field(default_factory=list)


class LogLine(Struct, frozen=True, gc=False, array_like=True):
    """`at_ns`: the engine's own timestamp in nanoseconds. `stream`: 1 stdout, 2 stderr."""

    at_ns: int
    stream: int
    text: str


class LogChunk(Frame, frozen=True, tag="log.chunk.v1"):
    """`dropped` lines (and `dropped_bytes`) were thrown away before these, because the reader gave no credit in time."""

    stream_id: Id
    lines: Annotated[list[LogLine], Meta(max_length=4096)]
    dropped: Counter = 0
    dropped_bytes: Counter = 0


class LogEnd(Frame, frozen=True, tag="log.end.v1"):
    """The stream ended: not followed and all sent, the engine container is gone, or `error` says why it could not be read."""

    stream_id: Id
    error: Sentence = ""


# Hub → agent -----------------------------------------------------------------------------------------------------------------


class HubChallenge(Frame, frozen=True, tag="hub.challenge.v1"):
    """`signature` by `signing_key` over both nonces, the version and the sealing key: the agent knows its coordinator before it
    says anything about itself."""

    nonce: Nonce
    version: Counter
    signing_key: Key
    sealing_key: Key
    signature: Signature


class HubEnrolled(Frame, frozen=True, tag="hub.enrolled.v1"):
    node_id: Id


class HubReady(Frame, frozen=True, tag="hub.ready.v1"):
    """`epoch` of this session; `sequence` of the node's assignment set as stored: when it differs from the agent's own, a complete
    set follows. The lease: renew every `period_ms`, anything heard renews it, silence of `grace_ms` ends the session."""

    epoch: Counter
    period_ms: Counter
    grace_ms: Counter
    sequence: Counter
    server_time: float
    capabilities: Words = field(default_factory=list)


class LeaseAck(HotFrame, frozen=True, tag="lease.ack.v1"):
    sent_ms: Counter
    period_ms: Counter


class ReportAck(HotFrame, frozen=True, tag="report.ack.v1"):
    batch: Counter


class AssignmentSet(Frame, frozen=True, tag="assignment.set.v1"):
    """The complete set at `sequence`, in parts that each fit a frame; it counts once the part with `final` is there."""

    sequence: Counter
    part: Counter
    final: bool
    assignments: Annotated[list[Assignment], Meta(max_length=4096)] = field(default_factory=list)


class AssignmentDelta(Frame, frozen=True, tag="assignment.delta.v1"):
    """Applies to `base` only, results in `sequence`. `forget` names tombstones the node has reported as removed."""

    base: Counter
    sequence: Counter
    assignments: Annotated[list[Assignment], Meta(max_length=4096)] = field(default_factory=list)
    forget: Annotated[list[Id], Meta(max_length=4096)] = field(default_factory=list)


class LogSubscribe(Frame, frozen=True, tag="log.subscribe.v1"):
    """`tail` last lines (None: all), between `since` and `until`; `credit` bytes may be sent before more is granted."""

    stream_id: Id
    instance_id: Id
    credit: Counter
    tail: Counter | None = None
    since: float | None = None
    until: float | None = None
    follow: bool = False


class LogCredit(HotFrame, frozen=True, tag="log.credit.v1"):
    stream_id: Id
    credit: Counter


class LogCancel(HotFrame, frozen=True, tag="log.cancel.v1"):
    stream_id: Id


class HubGoaway(Frame, frozen=True, tag="hub.goaway.v1"):
    """Sent before a close on purpose: `code` from the closing table, and when to come back."""

    code: Counter
    message: Sentence
    retry_after_ms: Counter = 0


AgentFrame = (
    AgentOpen
    | AgentEnroll
    | AgentHello
    | LeaseRenew
    | InstanceReports
    | AssignmentNeed
    | AssignmentAck
    | NodeStatus
    | MetricsSample
    | LogChunk
    | LogEnd
)
HubFrame = (
    HubChallenge
    | HubEnrolled
    | HubReady
    | LeaseAck
    | ReportAck
    | AssignmentSet
    | AssignmentDelta
    | LogSubscribe
    | LogCredit
    | LogCancel
    | HubGoaway
)
