"""The hub on a real store against agents at the other end of an in-memory websocket; and once over a real one."""

import asyncio
import os
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
import uvicorn
from litestar import Litestar
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from coordinator.control.leases import LeaseBook
from coordinator.control.samples import Samples
from coordinator.hub import hub as hub_module
from coordinator.hub.hub import Hub
from coordinator.hub.parts import HubKeys, HubParts
from coordinator.logs.broker import LogBroker, LogQuery, LogText
from coordinator.store import audit, instances, nodes, reports, tokens
from coordinator.store.audit import Notary
from coordinator.store.database import Store, Tx
from coordinator.store.errors import StoreError
from coordinator.store.tokens import JoinTokenRecord
from coordinator.store.vault import Vault
from shared.kit.ids import new_id
from shared.kit.seal import SealingKey, SigningKey
from shared.spec.container import Template
from shared.spec.instance import InstanceReport, Phase
from shared.spec.node import Engine, HostSample, InstanceSample, NodeFacts
from shared.spec.reason import Reason
from shared.wire.closing import CloseReason
from shared.wire.codec import decode_from_hub, encode
from shared.wire.frames import (
    AgentOpen,
    AssignmentDelta,
    AssignmentNeed,
    AssignmentSet,
    Held,
    HubChallenge,
    HubFrame,
    HubGoaway,
    HubReady,
    InstanceReports,
    LeaseAck,
    LeaseRenew,
    LogChunk,
    LogLine,
    LogSubscribe,
    MetricsSample,
    NodeStatus,
    ReportAck,
)
from shared.wire.join import JoinToken, fingerprint, new_token, secret_hash
from shared.wire.session import AgentIdentity
from tests.fakes.clock import FakeClock
from tests.fakes.seeds import Seeds, running, until
from tests.fakes.wire_agent import WireAgent, new_identity


@dataclass
class World:
    seeds: Seeds
    store: Store
    hub: Hub
    parts: HubParts
    clock: FakeClock
    broker: LogBroker
    book: LeaseBook
    samples: Samples

    @property
    def pin(self) -> bytes:
        return fingerprint(self.parts.keys.signing.public)

    async def token(self, *, uses: int = 1, ttl: float = 3600.0) -> JoinToken:
        token = new_token(new_id("join"), self.parts.keys.signing.public)

        async def unit(tx: Tx) -> None:
            await tokens.insert(
                tx,
                JoinTokenRecord(
                    id=token.token_id,
                    organization_id=self.seeds.organization_id,
                    cluster_id=self.seeds.cluster_id,
                    role="manager",
                    secret_hash=secret_hash(token.secret),
                    uses_left=uses,
                    expires_at=tx.now + ttl,
                    created_by="user_1",
                    created_at=tx.now,
                ),
            )

        await self.store.write(unit)
        return token

    async def known(self, name: str) -> AgentIdentity:
        """The identity of a node that is enrolled already."""
        identity = replace(new_identity(self.pin), node_id=f"node_{name}")
        await self.seeds.node(name)
        keys = {"signing_key": identity.signing.public, "sealing_key": identity.sealing.public}
        await self.seeds.change_node(f"node_{name}", **keys)
        return identity

    async def joined(self, name: str = "one", **connect: Any) -> WireAgent:
        """A connected agent of a fresh node that has heard its first set."""
        agent = WireAgent(await self.known(name))
        assert isinstance(await agent.connect(self.hub, **connect), HubReady)
        return agent

    def tick(self, seconds: float) -> None:
        """Let time pass for every connection."""
        self.clock.advance(seconds)
        for connection in list(self.hub._connections):
            connection.tick(self.clock.monotonic())


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    clock, book, samples = FakeClock(), LeaseBook(), Samples()
    broker = LogBroker(clock)
    vault = Vault(bytes(range(32)))
    keys = HubKeys(SigningKey.generate(), SealingKey.generate())
    parts = HubParts(store, vault, keys, book, samples, broker, Notary(keys.signing), clock)
    hub = Hub(parts)
    broker.attach(hub.registry)
    seeds = Seeds(store)
    seeds.sealed_key = vault.new_key(seeds.organization_id)
    await seeds.plant()
    async with running(hub.run()):
        yield World(seeds, store, hub, parts, clock, broker, book, samples)
        await hub.close()


async def instance_of(world: World, instance_id: str, holds: Callable[[Any], bool]) -> Any:
    async def check() -> Any:
        record = await world.seeds.instance(instance_id)
        return record if holds(record) else None

    return await until(check, "the instance's state")


# Enrolment ---------------------------------------------------------------------------------------------------------------------


async def test_a_token_makes_a_node_of_its_cluster_and_role_and_is_audited(world: World) -> None:
    agent = WireAgent(
        new_identity(world.pin, await world.token()), NodeFacts(hostname="fra-1\0", platform="linux/arm64")
    )
    ready = await agent.connect(world.hub)
    assert isinstance(ready, HubReady)
    assert agent.identity.node_id is not None
    node = await world.seeds.at(agent.identity.node_id)
    assert (node.cluster_id, node.role, node.name) == (world.seeds.cluster_id, "manager", "fra-1")
    assert node.facts.platform == "linux/arm64"
    assert node.epoch == ready.epoch == 1
    async with world.store.read() as conn:
        (entry,) = await audit.of_organization(conn, world.seeds.organization_id)
    assert (entry.action, entry.resource, entry.address) == ("node.enrolled", node.id, "192.0.2.7")
    assert world.book.is_connected(node.id)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda token: msgspec.structs.replace(token, token_id="join_other"), "not known here"),
        (lambda token: msgspec.structs.replace(token, secret=b"x" * 16), "not known here"),
    ],
)
async def test_a_foreign_or_forged_token_is_refused(
    world: World, spoil: Callable[[JoinToken], JoinToken], sentence: str
) -> None:
    agent = WireAgent(new_identity(world.pin, spoil(await world.token())))
    await refused(world, agent, CloseReason.TOKEN_REFUSED, sentence)


async def test_a_used_up_or_expired_token_says_which_it_is(world: World) -> None:
    token = await world.token()
    assert isinstance(await WireAgent(new_identity(world.pin, token)).connect(world.hub), HubReady)
    await refused(world, WireAgent(new_identity(world.pin, token)), CloseReason.TOKEN_REFUSED, "is used up")
    expired = await world.token(ttl=-1)
    await refused(world, WireAgent(new_identity(world.pin, expired)), CloseReason.TOKEN_REFUSED, "has expired")


async def test_a_token_with_two_uses_admits_two_nodes_even_at_once(world: World) -> None:
    token = await world.token(uses=2)
    agents = [WireAgent(new_identity(world.pin, token)) for _ in range(4)]
    answers = await asyncio.gather(*(agent.connect(world.hub) for agent in agents))
    assert sorted(type(answer).__name__ for answer in answers) == ["HubGoaway", "HubGoaway", "HubReady", "HubReady"]


async def test_an_enrolment_that_was_cut_off_may_be_repeated_with_the_same_key(world: World) -> None:
    identity = new_identity(world.pin, await world.token())
    first, second = WireAgent(identity), WireAgent(identity)
    assert isinstance(await first.connect(world.hub), HubReady)
    assert isinstance(await second.connect(world.hub), HubReady)
    assert first.identity.node_id == second.identity.node_id
    async with world.store.read() as conn:
        assert await nodes.count(conn) == 1


# Hello -------------------------------------------------------------------------------------------------------------------------


async def refused(world: World, agent: WireAgent, reason: CloseReason, sentence: str = "") -> HubGoaway:
    goaway = await agent.connect(world.hub)
    assert isinstance(goaway, HubGoaway)
    assert goaway.code == reason.code
    assert sentence in goaway.message
    assert await agent.gone() == reason.code
    return goaway


async def test_an_unknown_a_removed_and_an_impersonated_node_are_told_apart(world: World) -> None:
    stranger = replace(new_identity(world.pin), node_id="node_nobody")
    await refused(world, WireAgent(stranger), CloseReason.UNKNOWN_NODE)
    removed = await world.known("removed")
    await world.store.write(lambda tx: nodes.revoke(tx, "node_removed"))
    await refused(world, WireAgent(removed), CloseReason.REVOKED)
    await world.known("victim")
    thief = replace(new_identity(world.pin), node_id="node_victim")
    await refused(world, WireAgent(thief), CloseReason.BAD_SIGNATURE)
    assert (await world.seeds.at("node_victim")).epoch == 0
    assert len(world.hub.registry) == 0


async def test_epochs_only_grow_also_past_what_the_node_has_seen(world: World) -> None:
    identity = await world.known("one")
    ready = await WireAgent(identity).connect(world.hub)
    assert isinstance(ready, HubReady)
    assert ready.epoch == 1
    ready = await WireAgent(replace(identity, epoch=41)).connect(world.hub)
    assert isinstance(ready, HubReady)
    assert ready.epoch == 42, "the database was restored from a backup: the node knows better"


async def test_a_newer_session_takes_the_place_of_the_old_one_at_once(world: World) -> None:
    identity = await world.known("one")
    old, new = WireAgent(identity), WireAgent(identity)
    await old.connect(world.hub)
    await new.connect(world.hub)
    assert (await old.hear_a(HubGoaway)).code == CloseReason.SUPERSEDED.code
    assert await old.gone() == CloseReason.SUPERSEDED.code
    assert world.hub.registry.is_connected("node_one")
    assert world.book.is_connected("node_one"), "the end of the old session says nothing about the new one"
    new.say(LeaseRenew(5))
    assert (await new.hear_a(LeaseAck)).sent_ms == 5


async def test_a_node_that_connects_too_often_is_told_when_to_come_back(world: World) -> None:
    identity = await world.known("one")
    for _ in range(3):
        assert isinstance(await WireAgent(identity).connect(world.hub), HubReady)
    goaway = await refused(world, WireAgent(identity), CloseReason.OVERLOADED, "too often")
    assert 0 < goaway.retry_after_ms <= 9000
    world.clock.advance(8.1)
    assert isinstance(await WireAgent(identity).connect(world.hub), HubReady)


async def test_too_many_handshakes_at_once_are_put_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.hub.admission.HANDSHAKES", 1)
    waiting = WireAgent(new_identity(world.pin))
    waiting.dial(world.hub)
    await asyncio.sleep(0)
    other = WireAgent(await world.known("one"))
    goaway = await refused(world, other, CloseReason.OVERLOADED)
    assert goaway.retry_after_ms >= 1000
    await waiting.hang_up()
    assert isinstance(await WireAgent(other.identity).connect(world.hub), HubReady)


async def test_a_handshake_that_is_not_finished_runs_out_of_time(world: World) -> None:
    agent = WireAgent(new_identity(world.pin))
    agent.dial(world.hub)
    agent.say(AgentOpen(bytes(32), [1], "1.0"))
    await agent.hear_a(HubChallenge)
    world.tick(10.1)
    assert (await agent.hear_a(HubGoaway)).code == CloseReason.HANDSHAKE_TIMEOUT.code
    assert await agent.gone() == CloseReason.HANDSHAKE_TIMEOUT.code


# Misbehaviour --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00garbage", b"\x01garbage", b"\xffx", b"\x00\x81\xa4type\xa1x", b"\x00" * 70_000]
)
async def test_malformed_bytes_end_the_session_with_a_sentence_and_nothing_else(world: World, garbage: bytes) -> None:
    bystander = await world.joined("bystander")
    agent = await world.joined("one")
    with capture_logs() as logs:
        agent.say_raw(garbage)
        goaway = await agent.hear_a(HubGoaway)
        assert await agent.gone() == CloseReason.PROTOCOL_ERROR.code
    assert goaway.code == CloseReason.PROTOCOL_ERROR.code
    assert goaway.message
    assert not any("exc_info" in entry for entry in logs)
    bystander.say(LeaseRenew(1))
    await bystander.hear_a(LeaseAck)


async def test_a_frame_of_another_stage_is_a_protocol_error(world: World) -> None:
    agent = await world.joined()
    agent.say(AgentOpen(bytes(32), [1], "1.0"))
    assert "AgentOpen is not expected" in (await agent.hear_a(HubGoaway)).message


async def test_silence_ends_the_session_and_any_frame_is_a_sign_of_life(world: World) -> None:
    agent = await world.joined()
    assert agent.ready is not None
    grace = agent.ready.grace_ms / 1000
    world.tick(grace - 0.5)
    agent.say(AssignmentNeed())
    await agent.hear_a(AssignmentSet)
    world.tick(grace - 0.5)
    assert world.hub.registry.is_connected("node_one")
    world.tick(1)
    assert (await agent.hear_a(HubGoaway)).code == CloseReason.LEASE_EXPIRED.code
    await agent.gone()
    assert not world.book.is_connected("node_one")


async def test_an_agent_that_does_not_read_is_let_go_within_bounded_time(world: World) -> None:
    agent = await world.joined()
    await agent.hear_a(AssignmentSet)
    agent.socket.reading.clear()
    agent.say(LeaseRenew(1))
    await asyncio.sleep(0.05)
    world.tick(0)
    for _ in range(4):  # past SEND_SECONDS; the agent goes on sending: its lease is fine
        world.clock.advance(5)
        agent.say(LeaseRenew(1))
        await asyncio.sleep(0.02)
        world.tick(0)
    world.tick(1)
    await agent.gone()
    assert len(world.hub.registry) == 0


async def test_an_agent_that_makes_acks_pile_up_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.hub.lanes.CONTROL_LIMIT", 10)
    agent = await world.joined()
    await agent.hear_a(AssignmentSet)
    agent.socket.reading.clear()
    for number in range(30):
        agent.say(LeaseRenew(number))
    agent.say(NodeStatus(agent.facts))
    await asyncio.sleep(0.05)
    agent.socket.reading.set()
    assert (await agent.hear_a(HubGoaway)).code == CloseReason.TOO_SLOW.code


# Assignments --------------------------------------------------------------------------------------------------------------------


async def test_the_complete_set_comes_first_and_then_deltas(world: World) -> None:
    container = await world.seeds.container("web", Template(image="web:1", port=80))
    agent = await world.joined()
    assert agent.ready is not None
    first = await agent.hear_a(AssignmentSet)
    assert (first.sequence, first.part, first.final, first.assignments) == (agent.ready.sequence, 0, True, [])
    (made,) = await world.seeds.pending(container, 0)
    await world.store.write(lambda tx: instances.assign(tx, {made: "node_one"}))
    delta = await agent.hear_a(AssignmentDelta)
    assert (delta.base, delta.sequence) == (first.sequence, first.sequence + 1)
    (assignment,) = delta.assignments
    assert (assignment.instance_id, assignment.container_name, assignment.goal) == (made, "web", "run")
    assert assignment.spec is not None
    assert assignment.spec.image == "web:1"
    await world.store.write(lambda tx: instances.set_goal(tx, [made], "remove"))
    again = await agent.hear_a(AssignmentDelta)
    assert (again.base, again.assignments[0].goal) == (delta.sequence, "remove")
    assert await agent.quiet()


async def test_an_agent_that_is_up_to_date_hears_nothing_of_its_set(world: World) -> None:
    container = await world.seeds.container("web")
    identity = await world.known("one")
    await world.seeds.bound(container, "node_one", 0)
    agent = WireAgent(identity)
    await agent.connect(world.hub, sequence=await world.seeds.sequence("node_one"))
    assert await agent.quiet()
    (later,) = await world.seeds.pending(container, 1)
    await world.store.write(lambda tx: instances.assign(tx, {later: "node_one"}))
    delta = await agent.hear_a(AssignmentDelta)
    assert [assignment.instance_id for assignment in delta.assignments] == [later]


async def test_a_gap_is_answered_with_the_complete_set(world: World) -> None:
    container = await world.seeds.container("web")
    agent = await world.joined()
    await agent.hear_a(AssignmentSet)
    made = await world.seeds.bound(container, "node_one", 0, 1)
    await agent.hear_a(AssignmentDelta)
    agent.say(AssignmentNeed(have=0))
    complete = await agent.hear_a(AssignmentSet)
    assert sorted(assignment.instance_id for assignment in complete.assignments) == sorted(made)
    assert complete.sequence == await world.seeds.sequence("node_one")


async def test_a_large_set_comes_in_parts_that_fit(world: World) -> None:
    noise = os.urandom(4000).hex()
    template = Template(image="web:1", command=[noise])
    container = await world.seeds.container("web", template)
    await world.known("one")
    made = await world.seeds.pending(container, *range(40))
    await world.store.write(lambda tx: instances.assign(tx, dict.fromkeys(made, "node_one")))
    agent = WireAgent(replace(await reidentify(world, "one")))
    await agent.connect(world.hub)
    parts = [await agent.hear_a(AssignmentSet)]
    while not parts[-1].final:
        parts.append(await agent.hear_a(AssignmentSet))
    assert len(parts) > 3
    assert [part.part for part in parts] == list(range(len(parts)))
    assert sorted(one.instance_id for part in parts for one in part.assignments) == sorted(made)


async def reidentify(world: World, name: str) -> AgentIdentity:
    identity = replace(new_identity(world.pin), node_id=f"node_{name}")
    keys = {"signing_key": identity.signing.public, "sealing_key": identity.sealing.public}
    await world.seeds.change_node(f"node_{name}", **keys)
    return identity


async def test_a_delta_that_outgrows_a_frame_becomes_a_set(world: World) -> None:
    agent = await world.joined()
    await agent.hear_a(AssignmentSet)
    made: list[str] = []
    for number in range(20):  # each with another noise, or compression would see that they are alike
        noise = os.urandom(4000).hex()
        container = await world.seeds.container(f"web-{number}", Template(image="web:1", command=[noise]))
        made += await world.seeds.pending(container, 0)
    await world.store.write(lambda tx: instances.assign(tx, dict.fromkeys(made, "node_one")))
    parts = [await agent.hear_a(AssignmentSet)]
    while not parts[-1].final:
        parts.append(await agent.hear_a(AssignmentSet))
    assert sum(len(part.assignments) for part in parts) == 20
    assert not any(isinstance(frame, AssignmentDelta) for frame in agent.heard)


async def test_what_a_node_holds_and_should_not_comes_as_tombstones_and_what_nobody_knows_is_left_alone(
    world: World,
) -> None:
    container = await world.seeds.container("web")
    identity = await world.known("one")
    await world.seeds.node("other")
    (mine,) = await world.seeds.bound(container, "node_one", 0)
    (elsewhere,) = await world.seeds.bound(container, "node_other", 1)
    sequence = await world.seeds.sequence("node_one")
    held = [Held(mine, 1, 256), Held(elsewhere, 1, 256), Held("inst_unknown", 1, 256)]
    agent = WireAgent(identity)
    with capture_logs() as logs:
        await agent.connect(world.hub, sequence=sequence, held=held)
        complete = await agent.hear_a(AssignmentSet)
    assert complete.sequence > sequence
    goals = {assignment.instance_id: assignment.goal for assignment in complete.assignments}
    assert goals == {mine: "run", elsewhere: "remove"}
    assert any("nobody knows" in entry["event"] for entry in logs)
    agent.say(InstanceReports(1, [InstanceReport(elsewhere, 1, Phase.REMOVED)]))
    delta = await agent.hear_a(AssignmentDelta)
    assert delta.forget == [elsewhere]
    assert (await world.seeds.instance(elsewhere)).phase is Phase.RUNNING, "that is the other node's to say"


async def test_an_instance_that_is_over_is_not_started_again_by_a_node_without_a_journal(world: World) -> None:
    container = await world.seeds.container("job", Template(image="job:1", restart_policy="never"))
    identity = await world.known("one")
    (done,) = await world.seeds.bound(container, "node_one", 0)
    await world.seeds.report(done, Phase.STOPPED, reason=Reason("completed", "ended with code 0"))
    agent = WireAgent(identity)
    await agent.connect(world.hub)
    (assignment,) = (await agent.hear_a(AssignmentSet)).assignments
    assert assignment.goal == "stop"


async def test_the_sweep_finds_what_another_replica_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SWEEP_SECONDS", 0.02)
    agent, leaving = await world.joined("one"), await world.joined("leaving")
    await agent.hear_a(AssignmentSet)
    container = await world.seeds.container("web")
    (made,) = await world.seeds.pending(container, 0)
    monkeypatch.setattr(world.store.changes, "publish", lambda _: None)  # as if the commit were another process'
    await world.store.write(lambda tx: instances.assign(tx, {made: "node_one"}))
    await world.store.write(lambda tx: nodes.revoke(tx, "node_leaving"))
    async with running(world.hub._sweep()):
        await agent.hear_a(AssignmentDelta)
        assert (await leaving.hear_a(HubGoaway)).code == CloseReason.REVOKED.code


# Reports ------------------------------------------------------------------------------------------------------------------------


async def test_reports_are_stored_then_acknowledged(world: World) -> None:
    container = await world.seeds.container("web")
    agent = await world.joined()
    (made,) = await world.seeds.pending(container, 0)
    await world.store.write(lambda tx: instances.assign(tx, {made: "node_one"}))
    agent.say(InstanceReports(7, [InstanceReport(made, 1, Phase.RUNNING, "healthy", image_digest="sha256:aa")]))
    assert (await agent.hear_a(ReportAck)).batch == 7
    record = await world.seeds.instance(made)
    assert (record.phase, record.health, record.attempt) == (Phase.RUNNING, "healthy", 1)


async def test_reports_never_go_backwards_and_repeating_one_wakes_nobody(world: World) -> None:
    container = await world.seeds.container("web")
    agent = await world.joined()
    (made,) = await world.seeds.bound(container, "node_one", 0)
    agent.say(InstanceReports(1, [InstanceReport(made, 2, Phase.STARTING, "unhealthy")]))
    await agent.hear_a(ReportAck)
    subscription = world.store.changes.subscribe("instance")
    agent.say(InstanceReports(2, [InstanceReport(made, 2, Phase.STARTING, "unhealthy")]))
    agent.say(InstanceReports(3, [InstanceReport(made, 1, Phase.FAILED)]))
    await agent.hear_a(ReportAck, lambda ack: ack.batch == 3)
    assert await subscription.take(0) == frozenset()
    record = await world.seeds.instance(made)
    assert (record.attempt, record.phase) == (2, Phase.STARTING)


async def test_a_node_that_lies_about_another_nodes_instance_is_ignored_and_logged_once(world: World) -> None:
    container = await world.seeds.container("web")
    await world.seeds.node("other")
    (theirs,) = await world.seeds.bound(container, "node_other", 0)
    agent = await world.joined()
    with capture_logs() as logs:
        for batch in range(3):
            agent.say(InstanceReports(batch, [InstanceReport(theirs, 9, Phase.FAILED)]))
        await agent.hear_a(ReportAck, lambda ack: ack.batch == 2)
    assert (await world.seeds.instance(theirs)).phase is Phase.RUNNING
    assert sum("not its own" in entry["event"] for entry in logs) == 1


async def test_a_removed_instance_is_forgotten_by_the_node(world: World) -> None:
    container = await world.seeds.container("web")
    agent = await world.joined()
    (made,) = await world.seeds.bound(container, "node_one", 0)
    await world.seeds.retire(made)
    await agent.hear_a(AssignmentDelta, lambda delta: any(one.goal == "remove" for one in delta.assignments))
    agent.say(InstanceReports(1, [InstanceReport(made, 1, Phase.REMOVED)]))
    delta = await agent.hear_a(AssignmentDelta, lambda delta: bool(delta.forget))
    assert delta.forget == [made]
    assert (await world.seeds.instance(made)).phase is Phase.REMOVED
    agent.say(InstanceReports(2, [InstanceReport(made, 1, Phase.REMOVED)]))  # the delta was lost on its disk
    delta = await agent.hear_a(AssignmentDelta, lambda delta: bool(delta.forget))
    assert delta.forget == [made]


async def test_reports_of_a_session_whose_epoch_was_overtaken_change_nothing(world: World) -> None:
    container = await world.seeds.container("web")
    agent = await world.joined()
    (made,) = await world.seeds.bound(container, "node_one", 0)
    await world.store.write(lambda tx: nodes.open_session(tx, "node_one", 0))  # as another replica would
    agent.say(InstanceReports(1, [InstanceReport(made, 1, Phase.FAILED)]))
    assert (await agent.hear_a(HubGoaway)).code == CloseReason.SUPERSEDED.code
    assert (await world.seeds.instance(made)).phase is Phase.RUNNING


async def test_what_a_node_says_is_cut_to_size(world: World) -> None:
    container = await world.seeds.container("web")
    agent = await world.joined()
    (made,) = await world.seeds.pending(container, 0)
    await world.store.write(lambda tx: instances.assign(tx, {made: "node_one"}))
    report = InstanceReport(
        made,
        2**40,
        Phase.STARTING,
        "healthy",
        Reason("e" * 500, "nul\0" + "m" * 20_000, float("nan")),
        started_at=float("inf"),
        exit_code=-(2**50),
        image_digest="d\0" * 2000,
        progress=(-5, 2**63),
    )
    agent.say(InstanceReports(1, [report]))
    await agent.hear_a(ReportAck)
    record = await world.seeds.instance(made)
    assert record.reason is not None
    assert (len(record.reason.code), len(record.reason.message)) == (64, 1000)
    assert "\0" not in record.reason.message + record.image_digest
    assert (record.attempt, record.exit_code, record.health) == (2**31 - 1, -(2**31 - 1), "unknown")
    assert record.reason.next_at is None
    assert record.started_at is None


async def test_a_node_that_lost_its_count_is_followed_again(world: World) -> None:
    container = await world.seeds.container("web")
    identity = await world.known("one")
    (made,) = await world.seeds.bound(container, "node_one", 0)
    await world.seeds.report(made, Phase.RUNNING, health="healthy")

    async def fifth(tx: Tx) -> None:
        epoch = await nodes.epoch(tx.conn, "node_one")
        await reports.apply_reports(tx, "node_one", epoch or 0, [InstanceReport(made, 5, Phase.RUNNING, "healthy")])

    await world.store.write(fifth)
    agent = WireAgent(identity)
    await agent.connect(world.hub, held=[Held(made, 1, 256)])
    agent.say(InstanceReports(1, [InstanceReport(made, 1, Phase.RUNNING, "unhealthy")]))
    await agent.hear_a(ReportAck)
    assert (await world.seeds.instance(made)).health == "unhealthy", "its reports count, although 1 is less than 5"


@pytest.mark.parametrize(
    ("seen", "kept"), [(100, Phase.ASSIGNED), (-7, Phase.ASSIGNED), (200, Phase.STARTING), (2**40, Phase.RUNNING)]
)
async def test_a_phase_nobody_knows_is_stored_as_the_known_one_before_it(world: World, seen: int, kept: Phase) -> None:
    container = await world.seeds.container("web")
    identity = await world.known("one")
    (made,) = await world.seeds.bound(container, "node_one", 0)
    await world.seeds.report(made, Phase.RUNNING, health="healthy")
    agent = WireAgent(identity)
    await agent.connect(world.hub, held=[Held(made, 0, seen)])
    record = await world.seeds.instance(made)
    assert (record.attempt, record.phase) == (0, kept)


@pytest.mark.parametrize("held", ["inst_\0", ""])
async def test_an_id_with_a_nul_byte_is_a_protocol_error(world: World, held: str) -> None:
    identity = await world.known("one")
    if held:
        goaway = await WireAgent(identity).connect(world.hub, held=[Held(held, 1, 256)])
    else:
        goaway = await WireAgent(replace(identity, node_id="node_\0")).connect(world.hub)
    assert isinstance(goaway, HubGoaway)
    assert goaway.code == CloseReason.PROTOCOL_ERROR.code
    assert "NUL" in goaway.message


# The rest -----------------------------------------------------------------------------------------------------------------------


async def test_facts_are_stored_when_they_change_and_only_then(world: World) -> None:
    agent = await world.joined()
    changed = msgspec.structs.replace(
        agent.facts, engine=Engine(reason=Reason("engine_unreachable", "connection refused"))
    )
    subscription = world.store.changes.subscribe("node")
    agent.say(NodeStatus(changed))
    assert await subscription.take(5) == {("node", "node_one")}
    assert (await world.seeds.at("node_one")).facts == changed
    world.clock.advance(2)
    agent.say(NodeStatus(changed))
    agent.say(LeaseRenew(1))
    await agent.hear_a(LeaseAck)
    assert await subscription.take(0.05) == frozenset()


async def test_samples_reach_the_ring(world: World) -> None:
    agent = await world.joined()
    agent.say(MetricsSample(HostSample(1.0, 0.5, 10, 20, 30), [InstanceSample("inst_1", 1.0, float("inf"), -5)]))
    agent.say(LeaseRenew(1))
    await agent.hear_a(LeaseAck)
    assert world.samples.of_node("node_one")[0].memory_used == 10
    assert world.samples.of_instance("node_one", "inst_1")[0].memory == 0


async def test_logs_pass_through_and_stop_with_the_reader(world: World) -> None:
    agent = await world.joined()
    async with world.broker.open([("inst_1", "node_one")], LogQuery(follow=True)) as reader:
        asked = await agent.hear_a(LogSubscribe)
        agent.say(LogChunk(asked.stream_id, [LogLine(5, 2, "hello")]))
        event = await anext(reader)
        assert isinstance(event, LogText)
        assert (event.text, event.stream, event.node_id) == ("hello", 2, "node_one")
        await agent.hang_up()
        assert "until it is back" in str(await anext(reader))


async def test_a_revoked_node_is_let_go_at_once_and_told_why(world: World) -> None:
    agent = await world.joined()
    await world.store.write(lambda tx: nodes.revoke(tx, "node_one"))
    assert (await agent.hear_a(HubGoaway)).code == CloseReason.REVOKED.code


async def test_removing_a_node_closes_its_session(world: World) -> None:
    agent = await world.joined()
    assert world.hub.registry.close("node_one", CloseReason.REVOKED)
    assert (await agent.hear_a(HubGoaway)).code == CloseReason.REVOKED.code
    assert await agent.gone() == CloseReason.REVOKED.code
    assert not world.hub.registry.close("node_one", CloseReason.REVOKED)


async def test_closing_the_hub_asks_everybody_back_at_different_moments(world: World) -> None:
    agents = [await world.joined(f"n{number}") for number in range(5)]
    await world.hub.close()
    farewells = [await agent.hear_a(HubGoaway) for agent in agents]
    assert {farewell.code for farewell in farewells} == {CloseReason.GOING_AWAY.code}
    assert len({farewell.retry_after_ms for farewell in farewells}) > 1
    late = WireAgent(agents[0].identity)
    goaway = await late.connect(world.hub)
    assert isinstance(goaway, HubGoaway)
    assert goaway.code == CloseReason.GOING_AWAY.code


async def test_a_database_that_is_away_delays_reports_and_loses_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.hub.worker.RETRY_SECONDS", 0.01)
    container = await world.seeds.container("web")
    agent = await world.joined()
    (made,) = await world.seeds.bound(container, "node_one", 0)
    genuine, failures = world.store.write, 3

    async def flaky(unit: Callable[[Tx], Awaitable[Any]]) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreError("the database cannot be written: gone")
        return await genuine(unit)

    monkeypatch.setattr(world.store, "write", flaky)
    agent.say(InstanceReports(1, [InstanceReport(made, 2, Phase.STARTING)]))
    assert (await agent.hear_a(ReportAck)).batch == 1
    assert failures == 0
    assert (await world.seeds.instance(made)).attempt == 2


async def test_a_new_session_is_refused_kindly_while_the_database_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await world.known("one")

    async def away(_: Callable[[Tx], Awaitable[Any]]) -> Any:
        raise StoreError("the database cannot be written: gone")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "write", away)
        goaway = await refused(world, WireAgent(identity), CloseReason.OVERLOADED, "database")
        assert goaway.retry_after_ms > 0
    assert isinstance(await WireAgent(identity).connect(world.hub), HubReady)


async def test_over_a_real_websocket(world: World) -> None:
    listener = sockets.socket()
    listener.bind(("127.0.0.1", 0))
    app = Litestar(world.hub.handlers)
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    await until(_started(server), "the server")
    url = f"ws://127.0.0.1:{listener.getsockname()[1]}/agent/v1"
    try:
        async with connect(url, compression=None, ping_interval=None) as peer:
            await peer.send(encode(AgentOpen(bytes(32), [1], "1.0")))
            data = await peer.recv()
            assert isinstance(data, bytes)
            assert isinstance(decode_from_hub(data), HubChallenge)
            await peer.send("text is no frame")
            frame: HubFrame = decode_from_hub(await peer.recv())  # type: ignore[arg-type]
            assert isinstance(frame, HubGoaway)
            await peer.wait_closed()
            assert peer.close_code == CloseReason.PROTOCOL_ERROR.code
            assert peer.close_reason
        async with connect(url, compression=None, ping_interval=None) as peer:
            await peer.send(encode(AgentOpen(bytes(32), [1], "1.0")))
            await peer.recv()
        await until(_nobody(world), "the hub to let go")
    finally:
        server.should_exit = True
        await serving
        listener.close()


def _started(server: uvicorn.Server) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return server.started

    return check


def _nobody(world: World) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return not world.hub._connections

    return check
