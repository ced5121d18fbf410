"""The repositories' guards: what is atomic, what is refused, and how lists are paged."""

import asyncio
from dataclasses import dataclass

import pytest
from sqlalchemy.exc import IntegrityError

from coordinator.store import (
    access,
    clusters,
    containers,
    deployments,
    instances,
    nodes,
    organizations,
    projects,
    releases,
    reports,
    settings,
    tokens,
    users,
    volumes,
)
from coordinator.store.database import Store, Tx
from coordinator.store.deployments import DeploymentEvent, DeploymentRecord
from coordinator.store.organizations import MembershipRecord
from coordinator.store.projects import ProjectRecord
from coordinator.store.tokens import JoinTokenRecord, TokenError
from coordinator.store.users import ApiTokenRecord, UserRecord
from shared.kit.ids import new_id
from shared.spec.container import Template
from shared.spec.instance import InstanceReport, Phase
from shared.spec.reason import Reason
from shared.wire.join import secret_hash
from tests.fakes.seeds import Seeds


@pytest.fixture
async def seeds(store: Store) -> Seeds:
    return await Seeds(store).plant()


@dataclass
class Person:
    user_id: str
    hash: str


async def person(seeds: Seeds, *, expires_at: float | None = None, role: str | None = "admin") -> Person:
    made = Person(new_id("user"), new_id("hash"))

    async def unit(tx: Tx) -> None:
        await users.insert(tx, UserRecord(id=made.user_id, email=f"{made.user_id}@x", name="P", created_at=tx.now))
        token = ApiTokenRecord(
            id=new_id("tok"),
            user_id=made.user_id,
            created_by=made.user_id,
            name="t",
            hash=made.hash,
            prefix="p",
            created_at=tx.now,
            expires_at=expires_at,
        )
        await users.insert_token(tx, token)
        if role is not None:
            joined = MembershipRecord(
                organization_id=seeds.organization_id, user_id=made.user_id, role=role, joined_at=tx.now
            )
            await organizations.join(tx, joined)

    await seeds.store.write(unit)
    return made


async def test_a_caller_is_known_by_the_hash_of_a_token_and_has_the_roles_of_its_account(
    seeds: Seeds, store: Store
) -> None:
    member, outsider = await person(seeds), await person(seeds, role=None, expires_at=100.0)
    async with store.read() as conn:
        record = await users.token_by_hash(conn, member.hash)
        assert record is not None
        assert (record.user_id, record.expires_at) == (member.user_id, None)
        principal = await access.of_user(conn, member.user_id)
        assert principal is not None
        assert (principal.roles, principal.grants) == ({seeds.organization_id: "admin"}, {})
        alone = await access.of_user(conn, outsider.user_id)
        assert alone is not None
        assert alone.roles == {}
        late = await users.token_by_hash(conn, outsider.hash)
        assert late is not None
        assert late.expires_at == 100.0
        assert await users.token_by_hash(conn, "unknown") is None
        assert await access.of_user(conn, "user_unknown") is None
        assert (await organizations.counts(conn, [seeds.organization_id]))[seeds.organization_id].members == 1


async def test_a_join_token_is_used_as_often_as_it_says_even_at_once(seeds: Seeds, store: Store) -> None:
    record = JoinTokenRecord(
        id="join_1",
        organization_id=seeds.organization_id,
        role="worker",
        secret_hash=secret_hash(b"s"),
        uses_left=3,
        expires_at=9e9,
        created_by="u",
        created_at=0.0,
    )
    await store.write(lambda tx: tokens.insert(tx, record))
    tries = (store.write(lambda tx: tokens.use(tx, "join_1", b"s")) for _ in range(10))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, JoinTokenRecord) for outcome in outcomes) == 3
    assert {str(outcome) for outcome in outcomes if isinstance(outcome, TokenError)} == {
        "the join token is used up: ask for a new one"
    }


async def test_a_use_is_taken_back_with_its_transaction(seeds: Seeds, store: Store) -> None:
    record = JoinTokenRecord(
        id="join_1",
        organization_id=seeds.organization_id,
        role="worker",
        secret_hash=secret_hash(b"s"),
        uses_left=1,
        expires_at=9e9,
        created_by="u",
        created_at=0.0,
    )
    await store.write(lambda tx: tokens.insert(tx, record))

    async def fails(tx: Tx) -> None:
        await tokens.use(tx, "join_1", b"s")
        raise RuntimeError("the enrolment failed")

    with pytest.raises(RuntimeError):
        await store.write(fails)
    assert await store.write(lambda tx: tokens.use(tx, "join_1", b"s")) == record


async def test_a_decision_on_an_old_snapshot_changes_nothing(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    async with store.read() as conn:
        seen = await containers.get(conn, container)
    assert seen is not None
    waiting = {"0": Reason("waiting_previous", "it failed", 5.0)}
    assert await store.write(lambda tx: containers.change(tx, container, version=seen.version, waiting=waiting))
    assert not await store.write(lambda tx: containers.change(tx, container, version=seen.version, replicas=9))
    async with store.read() as conn:
        after = await containers.get(conn, container)
    assert after is not None
    assert (after.replicas, after.waiting, after.version) == (1, waiting, seen.version + 1)


async def test_names_are_unique_where_they_should_be(seeds: Seeds) -> None:
    await seeds.container("web")
    with pytest.raises(IntegrityError):
        await seeds.container("web")


async def test_lists_are_paged_by_id_without_gap_or_repetition(seeds: Seeds, store: Store) -> None:
    made = [await seeds.container(f"web-{number}") for number in range(7)]
    found: list[str] = []
    async with store.read() as conn:
        while page := await containers.of_project(conn, seeds.project_id, after=found[-1] if found else "", limit=3):
            found += [record.id for record in page]
        assert [record.id for record in await containers.of_project(conn, seeds.project_id, environment_id="x")] == []
    assert found == sorted(made)


async def test_a_search_takes_its_signs_literally(seeds: Seeds, store: Store) -> None:
    for name in ("Alpha_1", "alphax1", "beta%"):
        record = ProjectRecord(id=new_id("proj"), organization_id=seeds.organization_id, name=name, created_at=0.0)
        await store.write(lambda tx, record=record: projects.insert(tx, record))  # type: ignore[misc]
    async with store.read() as conn:
        found = await projects.of_organization(conn, seeds.organization_id, search="alpha_")
        assert [record.name for record in found] == ["Alpha_1"]
        found = await projects.of_organization(conn, seeds.organization_id, search="%")
        assert [record.name for record in found] == ["beta%"]


async def test_binding_takes_pending_instances_only_and_counts_the_nodes_set(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    first, second = await seeds.node("one"), await seeds.node("two")
    a, b = await seeds.pending(container, 0, 1)
    before = await seeds.sequence(first)
    assert await store.write(lambda tx: instances.assign(tx, {a: first, b: first})) == {a, b}
    assert await seeds.sequence(first) == before + 1
    assert await store.write(lambda tx: instances.assign(tx, {a: second})) == set()
    assert (await seeds.instance(a)).node_id == first
    assert await seeds.sequence(second) == 0


async def test_a_tombstone_is_never_taken_back(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    node = await seeds.node("one")
    (bound,) = await seeds.bound(container, node, 0)
    (pending,) = await seeds.pending(container, 1)
    subscription = store.changes.subscribe("assignment")
    changed = await store.write(lambda tx: instances.set_goal(tx, [bound, pending], "remove"))
    assert changed == {bound, pending}
    assert await subscription.take(1) == {("assignment", node)}
    assert (await seeds.instance(pending)).phase is Phase.REMOVED, "no node knows it"
    assert (await seeds.instance(bound)).phase is Phase.RUNNING, "its node has to end it"
    assert await store.write(lambda tx: instances.set_goal(tx, [bound], "run")) == set()
    assert await store.write(lambda tx: instances.set_goal(tx, [bound], "remove")) == set()
    assert await store.write(lambda tx: instances.set_goal(tx, [bound], "remove", remove_volumes=True)) == {bound}


async def test_a_reason_that_is_known_wakes_nobody(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    (made,) = await seeds.pending(container, 0)
    reason = Reason("unplaced", "no nodes")
    await store.write(lambda tx: instances.explain(tx, {made: reason}))
    subscription = store.changes.subscribe("instance", "cluster")
    await store.write(lambda tx: instances.explain(tx, {made: reason}))
    assert await subscription.take(0) == frozenset()
    assert (await seeds.instance(made)).reason == reason


async def test_a_container_is_purged_when_nothing_of_it_is_left_and_not_before(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    node = await seeds.node("one")
    (made,) = await seeds.bound(container, node, 0)
    await seeds.volume(container, 0, "data", node)
    assert not await store.write(lambda tx: containers.purge(tx, container))
    await seeds.change_container(container, desired="removed")
    assert not await store.write(lambda tx: containers.purge(tx, container)), "a node still holds an instance"
    await seeds.retire(made)
    await seeds.report(made, Phase.REMOVED)
    assert await store.write(lambda tx: containers.purge(tx, container))
    async with store.read() as conn:
        assert await containers.get(conn, container) is None
        assert await instances.get(conn, made) is None
        assert await releases.of_container(conn, container) == []
        assert await volumes.of_container(conn, container) == []


async def test_a_cluster_goes_without_its_nodes_but_not_with_its_containers(seeds: Seeds, store: Store) -> None:
    node = await seeds.node("one")
    container = await seeds.container("web")
    with pytest.raises(IntegrityError):
        await store.write(lambda tx: clusters.remove(tx, seeds.cluster_id))
    await seeds.change_container(container, desired="removed")
    await store.write(lambda tx: containers.purge(tx, container))
    assert await store.write(lambda tx: clusters.remove(tx, seeds.cluster_id))
    assert (await seeds.at(node)).cluster_id is None


async def test_a_deployment_keeps_its_events_and_at_most_one_is_active(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    async with store.read() as conn:
        record = await containers.get(conn, container)
    assert record is not None
    assert record.target_release_id is not None
    deployment = DeploymentRecord(
        id=new_id("dep"),
        container_id=container,
        kind="deploy",
        release_id=record.target_release_id,
        status="in_progress",
        created_by="u",
        created_at=1.0,
    )
    await store.write(lambda tx: deployments.insert(tx, deployment))
    events = [DeploymentEvent(1.0, "began")]
    assert await store.write(lambda tx: deployments.change(tx, deployment.id, version=1, events=events))
    assert not await store.write(lambda tx: deployments.change(tx, deployment.id, version=1, status="failed"))
    async with store.read() as conn:
        active = await deployments.active_of(conn, container)
    assert active is not None
    assert (active.events, active.status, active.version) == (events, "in_progress", 2)


async def test_a_revoked_node_has_no_epoch_and_is_in_no_list(seeds: Seeds, store: Store) -> None:
    node = await seeds.node("one")
    for seen, given in ((7, 8), (3, 9)):
        opened = await store.write(lambda tx, seen=seen: nodes.open_session(tx, node, seen))  # type: ignore[misc]
        assert opened is not None
        assert opened.epoch == given
    assert await store.write(lambda tx: nodes.revoke(tx, node))
    assert not await store.write(lambda tx: nodes.revoke(tx, node))
    async with store.read() as conn:
        assert await nodes.epoch(conn, node) is None
    assert await store.write(lambda tx: nodes.open_session(tx, node, 0)) is None
    async with store.read() as conn:
        assert await nodes.of_cluster(conn, seeds.cluster_id) == []
        assert await nodes.sequences(conn) == {}


async def test_availability_changes_from_what_was_expected_only(seeds: Seeds, store: Store) -> None:
    node = await seeds.node("one")
    assert await store.write(lambda tx: nodes.set_availability(tx, node, "draining", expected=["active", "cordoned"]))
    assert not await store.write(lambda tx: nodes.set_availability(tx, node, "drained", expected=["active"]))


async def test_lost_flags_say_what_really_changed(seeds: Seeds, store: Store) -> None:
    one, two = await seeds.node("one"), await seeds.node("two")
    container = await seeds.container("web")
    (made,) = await seeds.bound(container, one, 0)
    assert sorted(await store.write(lambda tx: nodes.set_lost(tx, [one, two], lost=True))) == sorted([one, two])
    assert (await seeds.at(one)).lost_at is not None
    assert sorted(await store.write(lambda tx: nodes.set_lost(tx, [one, two], lost=False))) == sorted([one, two])
    assert await store.write(lambda tx: nodes.set_lost(tx, [one], lost=False)) == []
    assert await store.write(lambda tx: instances.set_lost(tx, [one], lost=True)) == 1
    assert (await seeds.instance(made)).lost


async def test_the_first_to_keep_a_setting_decides_it(store: Store) -> None:
    assert await store.write(lambda tx: settings.put_first(tx, "key", b"mine")) == b"mine"
    assert await store.write(lambda tx: settings.put_first(tx, "key", b"yours")) == b"mine"


async def test_a_digest_is_filled_in_once(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web", Template(image="web:latest"))
    node = await seeds.node("one")
    first, second = await seeds.bound(container, node, 0, 1)
    await seeds.report(first, Phase.RUNNING, health="healthy", image_digest="sha256:aa")
    await seeds.report(second, Phase.RUNNING, health="healthy", image_digest="sha256:bb")
    async with store.read() as conn:
        (release,) = await releases.of_container(conn, container)
    assert release.image_digest == "sha256:aa"


async def test_a_thousand_reports_are_one_batch(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    node = await seeds.node("one")
    made = await seeds.pending(container, *range(1000))
    await store.write(lambda tx: instances.assign(tx, dict.fromkeys(made, node)))
    said = [InstanceReport(instance_id, 1, Phase.RUNNING, "healthy") for instance_id in made]
    applied = await store.write(lambda tx: reports.apply_reports(tx, node, 0, said))
    assert (applied.accepted, applied.stale, applied.foreign) == (1000, 0, ())
    async with store.read() as conn:
        assert {record.phase for record in await instances.of_node(conn, node)} == {Phase.RUNNING}


async def test_instances_that_cannot_be_told_are_rejected_in_the_nodes_place(seeds: Seeds, store: Store) -> None:
    container = await seeds.container("web")
    node = await seeds.node("one")
    (made,) = await seeds.pending(container, 0)
    await store.write(lambda tx: instances.assign(tx, {made: node}))
    await store.write(lambda tx: reports.reject(tx, node, {made: Reason("invalid", "too large")}))
    record = await seeds.instance(made)
    assert (record.phase, record.reason) == (Phase.REJECTED, Reason("invalid", "too large"))
