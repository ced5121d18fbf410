"""An agent's session and a hub's, joined by bytes that a test may lose, repeat, reorder, damage or forge."""

import os
from dataclasses import dataclass, field

from shared.kit.seal import SealingKey, SigningKey
from shared.spec.node import NodeFacts
from shared.wire import codec
from shared.wire.closing import CloseReason
from shared.wire.join import new_token
from shared.wire.session import AgentIdentity, AgentSession, Closed, Event, Holding, Stage
from tests.fakes.hub import FakeHub, KnownNode

FACTS = NodeFacts(hostname="hafen-1")
KEYS = SigningKey.generate(), SealingKey.generate()
HUB_KEYS = SigningKey.generate(), SealingKey.generate()
NODE = "node_1"


@dataclass
class Pair:
    """An agent and a hub joined by two queues of bytes that a test may tamper with, and what both said happened."""

    hub: FakeHub
    agent: AgentSession
    now: float = 1000.0
    to_hub: list[bytes] = field(default_factory=list)
    to_agent: list[bytes] = field(default_factory=list)
    sent_to_hub: list[bytes] = field(default_factory=list)
    sent_to_agent: list[bytes] = field(default_factory=list)
    agent_events: list[Event] = field(default_factory=list)
    hub_events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.served = self.hub.session(self.now)
        self.flush()

    def flush(self) -> None:
        up = [codec.encode(frame) for frame in self.agent.take_outgoing()]
        down = [codec.encode(frame) for frame in self.served.take_outgoing()]
        self.to_hub += up
        self.to_agent += down
        self.sent_to_hub += up
        self.sent_to_agent += down

    def deliver_to_agent(self, data: bytes) -> None:
        try:
            frame = codec.decode_from_hub(data)
        except codec.FrameError:
            self.agent_events.append(self.agent.close(CloseReason.PROTOCOL_ERROR))
        else:
            self.agent_events += self.agent.receive(frame, self.now)
        self.flush()

    def deliver_to_hub(self, data: bytes) -> None:
        try:
            frame = codec.decode_from_agent(data)
        except codec.FrameError:
            self.hub_events.append(self.served.close(CloseReason.PROTOCOL_ERROR))
        else:
            for event in self.served.receive(frame, self.now):
                self.hub_events += self.hub.decide(self.served, event, self.now)
        self.flush()

    def exchange(self) -> None:
        """Deliver everything in order until nothing is under way."""
        while self.to_hub or self.to_agent:
            while self.to_hub:
                self.deliver_to_hub(self.to_hub.pop(0))
            while self.to_agent:
                self.deliver_to_agent(self.to_agent.pop(0))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.agent_events += self.agent.tick(self.now)
        self.hub_events += self.served.tick(self.now)
        self.flush()

    @property
    def stages(self) -> tuple[Stage, Stage]:
        return self.agent.stage, self.served.stage

    def closed(self) -> Closed:
        return next(event for event in self.agent_events if isinstance(event, Closed))


def known_hub(epoch: int = 0) -> FakeHub:
    signing, sealing = KEYS
    hub = FakeHub(*HUB_KEYS)
    hub.nodes[NODE] = KnownNode(signing.public, sealing.public, epoch)
    return hub


def identity(epoch: int = 0) -> AgentIdentity:
    pin = new_token("any", HUB_KEYS[0].public).fingerprint
    return AgentIdentity(*KEYS, hub_fingerprint=pin, node_id=NODE, epoch=epoch)


def agent_of(who: AgentIdentity, now: float = 1000.0) -> AgentSession:
    return AgentSession(who, Holding(FACTS, sequence=7), os.urandom(32), "0.1.0", now)


def enrolled_pair() -> Pair:
    return Pair(known_hub(), agent_of(identity()))


def joining_pair() -> Pair:
    hub = FakeHub(*HUB_KEYS)
    token = hub.token()
    return Pair(hub, agent_of(AgentIdentity(*KEYS, hub_fingerprint=token.fingerprint, token=token)))
