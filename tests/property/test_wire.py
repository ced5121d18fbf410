"""The channel against a world that loses, repeats, reorders, damages and forges: it ends ready or closed, and never raises."""

from dataclasses import replace
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kit.seal import SealingKey, SigningKey
from shared.wire import codec, frames
from shared.wire.closing import CloseReason, by_code, by_transport
from shared.wire.frames import AgentFrame, HubFrame
from shared.wire.join import new_token
from shared.wire.session import HANDSHAKE_SECONDS, AgentIdentity, Enrolled, Ready, Stage
from tests.fakes.hub import FakeHub
from tests.fakes.pair import HUB_KEYS, KEYS, NODE, Pair, agent_of, enrolled_pair, identity, joining_pair, known_hub
from tests.golden import content
from tests.property.frame_strategies import agent_frames, hub_frames

AGENT_LISTS = st.lists(agent_frames(), max_size=5)
HUB_LISTS = st.lists(hub_frames(), max_size=5)


# Handshake -------------------------------------------------------------------------------------------------------------------


def test_an_enrolled_node_gets_ready() -> None:
    pair = enrolled_pair()
    pair.exchange()
    assert pair.stages == (Stage.READY, Stage.READY)
    assert [type(event) for event in pair.agent_events] == [Ready]


def test_a_new_node_enrols_and_gets_ready_with_its_token_used_up() -> None:
    pair = joining_pair()
    pair.exchange()
    assert pair.stages == (Stage.READY, Stage.READY)
    assert [type(event) for event in pair.agent_events] == [Enrolled, Ready]
    again = Pair(pair.hub, agent_of(pair.agent._identity))
    again.exchange()
    assert again.closed().reason is CloseReason.TOKEN_REFUSED
    assert again.closed().reason.retry == "never"


def test_the_tokens_secret_does_not_travel_in_the_clear() -> None:
    hub = FakeHub(*HUB_KEYS)
    token = hub.token()
    pair = Pair(hub, agent_of(AgentIdentity(*KEYS, hub_fingerprint=token.fingerprint, token=token)))
    pair.exchange()
    assert pair.stages[0] is Stage.READY
    assert all(token.secret not in data for data in pair.sent_to_hub + pair.sent_to_agent)


@given(cuts=st.sets(st.integers(0, 3), min_size=1))
def test_a_recorded_agent_is_not_admitted_again(cuts: set[int]) -> None:
    """Whoever recorded both sides of a session and speaks the agent's part, whole or in part, gets nowhere."""
    for recorded in (enrolled_pair(), joining_pair()):
        recorded.exchange()
        hub = recorded.hub
        epochs = {name: node.epoch for name, node in hub.nodes.items()}
        replayed = Pair(hub, agent_of(identity()))
        replayed.to_hub.clear()
        for index, data in enumerate(recorded.sent_to_hub):
            if index == 0 or index in cuts:
                replayed.deliver_to_hub(data)
        assert replayed.served.stage is not Stage.READY
        assert {name: node.epoch for name, node in hub.nodes.items()} == epochs


@given(order=st.permutations([0, 1, 2]))
def test_a_recorded_hub_is_not_believed(order: list[int]) -> None:
    recorded = joining_pair()
    recorded.exchange()
    victim = Pair(recorded.hub, agent_of(recorded.agent._identity))
    for index in order:
        victim.deliver_to_agent(recorded.sent_to_agent[index])
    assert victim.agent.stage is Stage.CLOSED
    assert not any(isinstance(event, Ready | Enrolled) for event in victim.agent_events)


def test_a_coordinator_with_another_key_learns_nothing() -> None:
    for who in (identity(), replace(identity(), node_id=None, token=new_token("jt_1", HUB_KEYS[0].public))):
        pair = Pair(FakeHub(), agent_of(who))
        pair.exchange()
        assert pair.closed().reason is CloseReason.UNTRUSTED_HUB
        assert len(pair.sent_to_hub) == 1, "only open was said, which says nothing about the node"


NEVER = [reason for reason in CloseReason if reason.retry == "never"]


@pytest.mark.parametrize("reason", NEVER)
def test_an_end_for_good_is_believed_only_of_the_coordinator_itself(reason: CloseReason) -> None:
    """Whoever answers the dial can say anything; what he says must not end a node for good."""
    assert by_transport(reason.code) is CloseReason.UNTRUSTED_HUB
    goaway = codec.encode(frames.HubGoaway(reason.code, "go"))
    for pair in (enrolled_pair(), joining_pair()):
        pair.deliver_to_agent(goaway)
        assert pair.closed().reason is CloseReason.UNTRUSTED_HUB
    for pair in (enrolled_pair(), joining_pair()):
        pair.deliver_to_hub(pair.to_hub.pop(0))
        pair.deliver_to_agent(pair.to_agent.pop(0))
        pair.deliver_to_agent(goaway)
        assert pair.closed().reason is reason, "after the challenge it was the coordinator"


def test_a_forged_challenge_proves_nothing() -> None:
    pair = enrolled_pair()
    other = Pair(FakeHub(), agent_of(identity()))
    other.deliver_to_hub(other.to_hub.pop(0))
    pair.deliver_to_agent(other.to_agent.pop(0))
    assert pair.closed().reason is CloseReason.UNTRUSTED_HUB


@pytest.mark.parametrize(("offered", "chosen"), [(["logs", "later"], ["logs"]), ([], [])])
def test_ready_answers_with_what_both_can(offered: list[str], chosen: list[str]) -> None:
    pair = enrolled_pair()
    pair.deliver_to_hub(pair.to_hub.pop(0))
    pair.deliver_to_agent(pair.to_agent.pop(0))
    hello = codec.decode_from_agent(pair.to_hub.pop(0))
    assert isinstance(hello, frames.AgentHello)
    pair.deliver_to_hub(codec.encode(msgspec.structs.replace(hello, capabilities=offered)))
    ready = codec.decode_from_hub(pair.to_agent.pop(0))
    assert isinstance(ready, frames.HubReady)
    assert ready.capabilities == chosen


def test_a_relayed_challenge_does_not_verify() -> None:
    """Between an agent and its real coordinator sits one who swaps the sealing key for his own."""
    pair = joining_pair()
    pair.deliver_to_hub(pair.to_hub.pop(0))
    challenge = codec.decode_from_hub(pair.to_agent.pop(0))
    assert isinstance(challenge, frames.HubChallenge)
    forged = frames.HubChallenge(
        challenge.nonce, challenge.version, challenge.signing_key, SealingKey.generate().public, challenge.signature
    )
    pair.deliver_to_agent(codec.encode(forged))
    assert pair.closed().reason is CloseReason.UNTRUSTED_HUB


def test_a_useless_sealing_key_is_refused_even_when_signed() -> None:
    class Zero(SealingKey):
        def __init__(self) -> None:
            super().__init__(bytes(range(32)))
            self.public = bytes(32)

    hub = FakeHub(HUB_KEYS[0], Zero())
    token = hub.token()
    pair = Pair(hub, agent_of(AgentIdentity(*KEYS, hub_fingerprint=token.fingerprint, token=token)))
    pair.exchange()
    assert pair.closed().reason is CloseReason.UNTRUSTED_HUB


def test_another_key_than_the_one_on_record_is_refused() -> None:
    hub = known_hub()
    hub.nodes[NODE].signing_key = SigningKey.generate().public
    pair = Pair(hub, agent_of(identity()))
    pair.exchange()
    assert pair.closed().reason is CloseReason.BAD_SIGNATURE
    assert hub.nodes[NODE].epoch == 0


def test_a_node_cannot_enrol_as_one_and_greet_as_another() -> None:
    pair = joining_pair()
    for _ in range(2):
        pair.deliver_to_hub(pair.to_hub.pop(0))
        pair.deliver_to_agent(pair.to_agent.pop(0))
    hello = codec.decode_from_agent(pair.to_hub.pop(0))
    assert isinstance(hello, frames.AgentHello)
    other = frames.AgentHello("node_other", hello.sealing_key, hello.signature, hello.epoch, hello.facts)
    pair.deliver_to_hub(codec.encode(other))
    assert pair.served.stage is Stage.CLOSED


def test_no_common_version_is_said_so() -> None:
    pair = enrolled_pair()
    pair.to_hub.clear()
    pair.deliver_to_hub(codec.encode(frames.AgentOpen(bytes(32), [99, 98], "9.0.0")))
    [goaway] = [codec.decode_from_hub(data) for data in pair.to_agent]
    assert isinstance(goaway, frames.HubGoaway)
    assert by_code(goaway.code) is CloseReason.NO_COMMON_VERSION
    assert "98, 99" in goaway.message


# Epochs and leases -----------------------------------------------------------------------------------------------------------


@given(seen=st.integers(0, 2**40), offered=st.integers(0, 2**40))
def test_an_epoch_only_grows(seen: int, offered: int) -> None:
    pair = Pair(known_hub(), agent_of(identity(epoch=seen)))
    pair.deliver_to_hub(pair.to_hub.pop(0))
    pair.deliver_to_agent(pair.to_agent.pop(0))
    ready = frames.HubReady(offered, 2000, 6000, 0, 1.0)
    pair.deliver_to_agent(codec.encode(ready))
    if offered > seen:
        assert pair.agent_events == [Ready(ready)]
        assert pair.agent.epoch == offered
    else:
        assert pair.closed().reason is CloseReason.STALE_EPOCH
        assert pair.agent.epoch == seen


@given(period=st.floats(0.1, 60), missed=st.lists(st.booleans(), max_size=12))
def test_silence_of_the_grace_ends_a_session_and_anything_heard_does_not(period: float, missed: list[bool]) -> None:
    hub = known_hub()
    hub.period, hub.grace = period, 3 * period
    pair = Pair(hub, agent_of(identity()))
    pair.exchange()
    heard_at = pair.now
    for lost in missed:
        pair.pass_time(0.7 * period)
        if lost:
            pair.to_hub.clear()
        answered = bool(pair.to_hub)
        pair.exchange()
        heard_at = pair.now if answered else heard_at
        if pair.agent.stage is Stage.CLOSED:
            assert pair.now - heard_at >= 3 * period - 1e-6
            assert pair.closed().reason is CloseReason.LEASE_EXPIRED
            return
        assert pair.now - heard_at < 3 * period + 1e-6


@given(slower=st.integers(2, 60))
def test_a_slower_lease_does_not_end_by_itself(slower: int) -> None:
    """The coordinator may lengthen the period in any ack; the grace must lengthen with it."""
    pair = enrolled_pair()
    pair.exchange()
    pair.served.period, pair.served.grace = float(slower), 3.0 * slower
    for _ in range(6):
        pair.pass_time(pair.agent.deadline - pair.now)
        pair.exchange()
        assert pair.stages == (Stage.READY, Stage.READY)


@given(period_ms=st.integers(0, 20), ticks=st.integers(1, 50))
def test_a_period_of_nothing_is_no_busy_loop(period_ms: int, ticks: int) -> None:
    pair = enrolled_pair()
    pair.deliver_to_hub(pair.to_hub.pop(0))
    pair.deliver_to_agent(pair.to_agent.pop(0))
    pair.deliver_to_agent(codec.encode(frames.HubReady(5, period_ms, 60_000, 0, 1.0)))
    pair.to_hub.clear()
    for _ in range(ticks):
        pair.now = max(pair.agent.deadline, pair.now)
        pair.agent.tick(pair.now)
    assert pair.now - 1000.0 >= 0.05 * (ticks - 1)


def test_an_unfinished_handshake_ends_at_its_deadline() -> None:
    pair = enrolled_pair()
    pair.pass_time(HANDSHAKE_SECONDS - 0.001)
    assert Stage.CLOSED not in pair.stages
    pair.pass_time(0.002)
    assert pair.stages == (Stage.CLOSED, Stage.CLOSED)
    assert pair.closed().reason is CloseReason.HANDSHAKE_TIMEOUT


# A hostile network -----------------------------------------------------------------------------------------------------------

Move = tuple[Literal["up", "down"], Literal["deliver", "drop", "repeat", "swap", "cut", "damage", "forge", "wait"], int]
MOVES = st.tuples(
    st.sampled_from(["up", "down"]),
    st.sampled_from(
        ["deliver", "deliver", "deliver", "deliver", "drop", "repeat", "swap", "cut", "damage", "forge", "wait"]
    ),
    st.integers(0, 2**16),
)


def play(pair: Pair, move: Move) -> None:
    way, what, number = move
    queue = pair.to_hub if way == "up" else pair.to_agent
    deliver = pair.deliver_to_hub if way == "up" else pair.deliver_to_agent
    if what == "wait":
        pair.pass_time(number % 4)
    elif what == "forge":
        golden: tuple[AgentFrame | HubFrame, ...] = content.AGENT if way == "up" else content.HUB
        deliver(codec.encode(golden[number % len(golden)]))
    elif queue:
        data = queue.pop(0)
        match what:
            case "drop":
                return
            case "repeat":
                deliver(data)
            case "swap" if queue:
                queue.insert(1, data)
                data = queue.pop(0)
            case "cut":
                data = data[: number % len(data)]
            case "damage":
                data = bytes(byte ^ (1 if index == number % len(data) else 0) for index, byte in enumerate(data))
            case _:
                pass
        deliver(data)


@settings(max_examples=200)
@given(joining=st.booleans(), moves=st.lists(MOVES, max_size=40))
def test_a_hostile_network_leaves_both_sides_ready_or_closed(joining: bool, moves: list[Move]) -> None:
    pair = joining_pair() if joining else enrolled_pair()
    for move in moves:
        play(pair, move)
    pair.pass_time(HANDSHAKE_SECONDS + 1)
    assert set(pair.stages) <= {Stage.READY, Stage.CLOSED}
    for events in (pair.agent_events, pair.hub_events):
        assert sum(isinstance(event, Ready) for event in events) <= 1
    admitted = pair.served.stage is Stage.READY
    assert not admitted or any(node.epoch for node in pair.hub.nodes.values())


@settings(max_examples=100)
@given(data=st.data())
def test_any_frames_in_any_order_end_ready_or_closed(data: st.DataObject) -> None:
    pair = data.draw(st.sampled_from([enrolled_pair, joining_pair]))()
    for frame in data.draw(HUB_LISTS):
        pair.agent_events += pair.agent.receive(frame, pair.now)
    for told in data.draw(AGENT_LISTS):
        for event in pair.served.receive(told, pair.now):
            pair.hub_events += pair.hub.decide(pair.served, event, pair.now)
    pair.pass_time(HANDSHAKE_SECONDS + 1)
    assert set(pair.stages) == {Stage.CLOSED}, "nobody gets ready without the keys"


def test_after_the_end_nothing_is_heard() -> None:
    pair = enrolled_pair()
    pair.exchange()
    pair.agent.close(CloseReason.GOING_AWAY)
    pair.served.close(CloseReason.GOING_AWAY)
    pair.flush()
    assert pair.agent.receive(frames.ReportAck(1), pair.now) == []
    assert pair.served.receive(frames.LeaseRenew(1), pair.now) == []
    pair.pass_time(1000)
    assert not pair.agent.take_outgoing()
    assert not pair.served.take_outgoing()
