"""What a node is told of an instance: the template resolved, secrets sealed to it alone, and reasons for what cannot be told."""

import secrets
from dataclasses import dataclass

import msgspec
import pytest

from coordinator.hub.assignments import Recipient
from coordinator.hub.outbox import Outbox, Sending
from coordinator.store import instances, organizations
from coordinator.store.database import Store, Tx
from coordinator.store.tables import organization
from coordinator.store.vault import REGISTRY_KEY, Compartment, Vault, env_context
from shared.kit.seal import SealError, SealingKey
from shared.spec.container import (
    EnvVar,
    HealthCheck,
    Port,
    RegistryCredentials,
    Resources,
    Template,
    Volume,
)
from shared.spec.instance import Assignment, InstanceSecrets, InstanceVolume, Phase
from shared.spec.reason import INVALID, SECRETS_UNREADABLE
from shared.wire.codec import decode_from_hub
from shared.wire.frames import AssignmentDelta, AssignmentSet
from tests.fakes.seeds import Seeds


@dataclass
class Desk:
    """A planted store, a vault, and a node with a key of its own."""

    seeds: Seeds
    store: Store
    vault: Vault
    key: SealingKey
    node_id: str

    def outbox(self, held: int | None = None) -> Outbox:
        return Outbox(self.store, self.vault, Recipient(self.node_id, self.key.public), held, [])

    def compartment(self) -> Compartment:
        return self.vault.unlock(self.seeds.sealed_key, self.seeds.organization_id)

    async def assigned(self, container_id: str, *slots: int) -> list[str]:
        made = await self.seeds.pending(container_id, *slots)
        await self.store.write(lambda tx: instances.assign(tx, dict.fromkeys(made, self.node_id)))
        return made


@pytest.fixture
async def desk(store: Store) -> Desk:
    vault, seeds = Vault(bytes(32)), Seeds(store)
    seeds.sealed_key = vault.new_key(seeds.organization_id)
    await seeds.plant()
    return Desk(seeds, store, vault, SealingKey.generate(), await seeds.node("one"))


def told(sending: Sending) -> list[Assignment]:
    found: list[Assignment] = []
    for data in sending.frames:
        frame = decode_from_hub(data)
        assert isinstance(frame, AssignmentSet | AssignmentDelta)
        found += frame.assignments
    return found


async def test_a_template_is_resolved_for_its_slot(desk: Desk) -> None:
    template = Template(
        image="web:1",
        command=["serve"],
        port=80,
        ports=[Port(port=443, host_port=8443)],
        env=[EnvVar(key="A", value="1")],
        resources=Resources(cpu_limit="500m", memory_limit="64Mi"),
        health_check=HealthCheck(path="/up"),
        volumes=[
            Volume(name="data", mount_path="/data"),
            Volume(name="host", mount_path="/host", host_path="/srv", read_only=True),
        ],
        labels={"team": "shop"},
    )
    container = await desk.seeds.container("web", template)
    await desk.assigned(container, 3)
    (assignment,) = told(await desk.outbox().next())
    spec = assignment.spec
    assert spec is not None
    assert (assignment.container_id, assignment.slot, assignment.revision) == (container, 3, 1)
    assert spec.ports == [Port(port=80), Port(port=443, host_port=8443)]
    assert (spec.cpu_millis, spec.memory_bytes) == (500, 64 * 2**20)
    assert spec.health_check == HealthCheck(path="/up", port=80), "a check without a port is on the container's own"
    assert spec.volumes == [
        InstanceVolume(f"argosy_{container}_3_data", "/data"),
        InstanceVolume("/srv", "/host", host=True, read_only=True),
    ]
    assert spec.sealed == b""
    assert spec.labels == {"team": "shop"}


async def test_secrets_travel_sealed_to_the_node_and_to_no_other_instance(desk: Desk) -> None:
    container = await desk.seeds.container("web")
    seal = desk.compartment().conceal
    template = Template(
        image="web:1",
        env=[
            EnvVar(key="PLAIN", value="p"),
            EnvVar(key="KEY", value=seal("hush", env_context(container, "KEY")), secret=True),
        ],
        credentials=RegistryCredentials("me", seal("pass", env_context(container, REGISTRY_KEY))),
    )
    await desk.seeds.release(container, template)
    (made,) = await desk.assigned(container, 0)
    sending = await desk.outbox().next()
    assert b"hush" not in b"".join(sending.frames)
    (assignment,) = told(sending)
    spec = assignment.spec
    assert spec is not None
    assert spec.env == [EnvVar(key="PLAIN", value="p")]
    plain = msgspec.msgpack.decode(desk.key.open(spec.sealed, made.encode()), type=InstanceSecrets)
    assert plain == InstanceSecrets({"KEY": "hush"}, "me", "pass")
    with pytest.raises(SealError):
        desk.key.open(spec.sealed, b"inst_other")
    with pytest.raises(SealError):
        SealingKey.generate().open(spec.sealed, made.encode())


async def test_a_secret_that_does_not_open_becomes_a_reason_and_holds_up_nothing_else(desk: Desk) -> None:
    good = await desk.seeds.container("good")
    bad = await desk.seeds.container("bad")
    moved = desk.compartment().conceal("hush", env_context(good, "KEY"))  # another container's value
    await desk.seeds.release(bad, Template(image="web:1", env=[EnvVar(key="KEY", value=moved, secret=True)]))
    (fine,) = await desk.assigned(good, 0)
    (broken,) = await desk.assigned(bad, 0)
    outbox = desk.outbox()
    sending = await outbox.next()
    assert [assignment.instance_id for assignment in told(sending)] == [fine]
    assert sending.refused[broken].code == SECRETS_UNREADABLE
    assert "hush" not in sending.refused[broken].message
    assert (await outbox.next()) == Sending(), "said once"


async def test_a_foreign_master_key_refuses_secrets_only(desk: Desk) -> None:
    async def rekey(tx: Tx) -> None:
        foreign = Vault(bytes([1]) * 32).new_key(desk.seeds.organization_id)
        await tx.conn.execute(organization.update().values(sealed_key=foreign))
        assert await organizations.get(tx.conn, desk.seeds.organization_id) is not None

    plain, secret = await desk.seeds.container("plain"), await desk.seeds.container("secret")
    value = desk.compartment().conceal("hush", env_context(secret, "K"))
    await desk.seeds.release(secret, Template(image="web:1", env=[EnvVar(key="K", value=value, secret=True)]))
    await desk.store.write(rekey)
    (fine,) = await desk.assigned(plain, 0)
    (broken,) = await desk.assigned(secret, 0)
    sending = await desk.outbox().next()
    assert [assignment.instance_id for assignment in told(sending)] == [fine]
    assert list(sending.refused) == [broken]
    await desk.seeds.retire(broken)
    outbox = desk.outbox()
    assert {one.instance_id: one.goal for one in told(await outbox.next())} == {fine: "run", broken: "remove"}


async def test_a_declaration_too_large_for_a_frame_becomes_a_reason(desk: Desk) -> None:
    container = await desk.seeds.container("web")
    # Random, so that compression does not help: more than the API lets in, as an older version might have.
    noise = [EnvVar(key=f"N{number}", value=secrets.token_hex(15_000)) for number in range(6)]
    await desk.seeds.release(container, Template(image="web:1", env=noise))
    (made,) = await desk.assigned(container, 0)
    sending = await desk.outbox().next()
    assert told(sending) == []
    assert sending.refused[made].code == INVALID
    await desk.store.write(lambda tx: instances.set_goal(tx, [made], "remove"))
    (tombstone,) = told(await desk.outbox().next())
    assert (tombstone.instance_id, tombstone.goal, tombstone.spec) == (made, "remove", None), "it can go all the same"


async def test_a_tombstone_names_the_volumes_that_go_and_no_secrets(desk: Desk) -> None:
    template = Template(
        image="web:1",
        volumes=[
            Volume(name="data", mount_path="/data"),
            Volume(name="host", mount_path="/host", host_path="/srv"),
        ],
    )
    container = await desk.seeds.container("web", template)
    (made,) = await desk.assigned(container, 0)
    outbox = desk.outbox()
    await outbox.next()
    await desk.store.write(lambda tx: instances.set_goal(tx, [made], "remove", remove_volumes=True))
    (assignment,) = told(await outbox.next())
    assert assignment.goal == "remove"
    assert assignment.remove_volumes == [f"argosy_{container}_0_data"]


async def test_nothing_is_told_twice_and_a_removed_instance_is_forgotten(desk: Desk) -> None:
    container = await desk.seeds.container("web")
    first, second = await desk.assigned(container, 0, 1)
    outbox = desk.outbox()
    await outbox.next()
    assert (await outbox.next()).frames == []
    await desk.seeds.retire(first)
    await outbox.next()
    await desk.seeds.report(first, Phase.REMOVED)
    (data,) = (await outbox.next()).frames
    delta = decode_from_hub(data)
    assert isinstance(delta, AssignmentDelta)
    assert (delta.forget, delta.assignments) == ([first], [])
    assert delta.sequence == await desk.seeds.sequence("node_one")
    assert second not in delta.forget


async def test_an_order_taken_back_before_it_was_sent_still_moves_the_number_on(desk: Desk) -> None:
    container = await desk.seeds.container("web")
    outbox = desk.outbox()
    await outbox.next()
    (made,) = await desk.assigned(container, 0)
    await desk.seeds.retire(made)
    await desk.seeds.report(made, Phase.REMOVED)
    (data,) = (await outbox.next()).frames
    delta = decode_from_hub(data)
    assert isinstance(delta, AssignmentDelta)
    assert (delta.assignments, delta.forget) == ([], [])
    assert delta.sequence == await desk.seeds.sequence("node_one") == outbox.sequence
