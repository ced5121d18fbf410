"""From instance and release to what a node is told: the template resolved, its secrets revealed and sealed to the node's key.

Plaintext secrets exist here for the time of one call. What cannot be told (a secret that does not open, a declaration too large
for a frame) becomes a reason instead, and never stops the rest of the set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import containers, instances, organizations, releases
from coordinator.store.containers import ContainerRecord
from coordinator.store.instances import InstanceRecord
from coordinator.store.releases import ReleaseRecord
from coordinator.store.vault import REGISTRY_KEY, Compartment, Vault, VaultError, env_context
from shared.kit.seal import SealError, seal
from shared.spec.container import HealthCheck, Template, all_ports
from shared.spec.instance import TERMINAL, Assignment, Goal, InstanceSecrets, InstanceSpec, InstanceVolume
from shared.spec.quantity import byte_count, cpu_millis
from shared.spec.reason import INVALID, SECRETS_UNREADABLE, Reason
from shared.wire.codec import FrameError, encode
from shared.wire.frames import AssignmentSet

log = structlog.get_logger()
_PART_BYTES = 48 * 1024


@dataclass(frozen=True)
class Recipient:
    node_id: str
    sealing_key: bytes


@dataclass(frozen=True)
class Built:
    assignments: list[Assignment] = field(default_factory=list)
    refused: dict[str, Reason] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sources:
    instances: Mapping[str, InstanceRecord]
    containers: Mapping[str, ContainerRecord]
    releases: Mapping[str, ReleaseRecord]
    compartments: Mapping[str, Compartment | VaultError]


async def build(
    conn: AsyncConnection, vault: Vault, to: Recipient, instance_ids: Iterable[str], *, complete: bool
) -> Built:
    """`complete`: for a set rather than a delta. What is over there and should run is then named as to be kept stopped, because a
    node that has lost its journal would start it afresh."""
    sources = await _load(conn, vault, list(instance_ids))
    built = Built()
    for instance_id, record in sorted(sources.instances.items()):
        goal: Goal = "stop" if complete and record.goal == "run" and record.phase in TERMINAL else record.goal
        try:
            assignment = _assignment(sources, record, goal, to)
            _check_size(assignment)
        except (SealError, VaultError, ValueError) as error:
            log.error("secrets of an instance cannot be read", instance=instance_id, error=str(error))
            built.refused[instance_id] = Reason(SECRETS_UNREADABLE, f"its secrets cannot be read: {error}")
        except FrameError as error:
            built.refused[instance_id] = Reason(INVALID, f"its declaration is too large to be sent: {error}")
        else:
            built.assignments.append(assignment)
    return built


def tombstone(record: InstanceRecord) -> Assignment:
    """For an instance that a node holds and should not: nothing to run, so nothing said of what it was."""
    return Assignment(
        instance_id=record.id,
        container_id=record.container_id,
        container_name="",
        slot=record.slot,
        revision=record.revision,
        spec_hash="",
        goal="remove",
    )


def parts(assignments: list[Assignment]) -> list[list[Assignment]]:
    """Lists that each fit a frame; one, empty, when there is nothing."""
    filled: list[list[Assignment]] = [[]]
    size = 0
    for assignment in assignments:
        own = len(msgspec.msgpack.encode(assignment))
        if filled[-1] and size + own > _PART_BYTES:
            filled.append([])
            size = 0
        filled[-1].append(assignment)
        size += own
    return filled


def resolve(template: Template, container_id: str, slot: int, sealed: bytes) -> InstanceSpec:
    """The template as one instance runs it."""
    resources = template.resources
    return InstanceSpec(
        image=template.image,
        command=template.command,
        env=[var for var in template.env if not var.secret],
        sealed=sealed,
        ports=all_ports(template),
        cpu_millis=cpu_millis(resources.cpu_limit) if resources.cpu_limit else None,
        memory_bytes=byte_count(resources.memory_limit) if resources.memory_limit else None,
        health_check=_health_check(template),
        volumes=[
            InstanceVolume(
                source=volume.host_path or volume_name(container_id, slot, volume.name),
                target=volume.mount_path,
                host=volume.host_path is not None,
                read_only=volume.read_only,
            )
            for volume in template.volumes
        ],
        labels=template.labels,
        restart_policy=template.restart_policy,
        stop_grace_period=template.stop_grace_period,
        security=template.security,
    )


def volume_name(container_id: str, slot: int, name: str) -> str:
    return f"argosy_{container_id}_{slot}_{name}"


def _health_check(template: Template) -> HealthCheck | None:
    check = template.health_check
    if check is None or check.type == "exec" or check.port is not None:
        return check
    return msgspec.structs.replace(check, port=template.port)


async def _load(conn: AsyncConnection, vault: Vault, instance_ids: list[str]) -> _Sources:
    found = await instances.of_ids(conn, instance_ids) if instance_ids else {}
    holders = await containers.of_ids(conn, {record.container_id for record in found.values()}) if found else {}
    frozen = await releases.of_ids(conn, {record.release_id for record in found.values()}) if found else {}
    compartments: dict[str, Compartment | VaultError] = {}
    for organization_id in sorted({record.organization_id for record in found.values()}):
        compartments[organization_id] = await _unlock(conn, vault, organization_id)
    return _Sources(found, holders, frozen, compartments)


async def _unlock(conn: AsyncConnection, vault: Vault, organization_id: str) -> Compartment | VaultError:
    """An error is kept until a secret is really needed."""
    organization = await organizations.get(conn, organization_id)
    if organization is None:
        return VaultError("their organisation is gone")
    try:
        return vault.unlock(organization.sealed_key, organization_id)
    except VaultError as error:
        return error


def _assignment(sources: _Sources, record: InstanceRecord, goal: Goal, to: Recipient) -> Assignment:
    container, release = sources.containers[record.container_id], sources.releases[record.release_id]
    template = release.template
    # A tombstone needs no secrets: it must reach the node even when they no longer open.
    sealed = b"" if goal == "remove" else _sealed(template, record, sources.compartments[record.organization_id], to)
    volumes = [volume for volume in template.volumes if volume.host_path is None] if record.remove_volumes else []
    return Assignment(
        instance_id=record.id,
        container_id=record.container_id,
        container_name=container.name,
        slot=record.slot,
        revision=record.revision,
        spec_hash=release.spec_hash,
        goal=goal,
        spec=resolve(template, record.container_id, record.slot, sealed),
        remove_volumes=[volume_name(record.container_id, record.slot, volume.name) for volume in volumes],
    )


def _sealed(template: Template, record: InstanceRecord, compartment: Compartment | VaultError, to: Recipient) -> bytes:
    secret = [var for var in template.env if var.secret]
    credentials = template.credentials
    if not secret and credentials is None:
        return b""
    if isinstance(compartment, VaultError):
        raise compartment
    container_id = record.container_id
    plain = InstanceSecrets(
        env={var.key: compartment.reveal(var.value, env_context(container_id, var.key)) for var in secret},
        username=credentials.username if credentials else "",
        password=compartment.reveal(credentials.password, env_context(container_id, REGISTRY_KEY))
        if credentials
        else "",
    )
    return seal(to.sealing_key, msgspec.msgpack.encode(plain), record.id.encode())


def _check_size(assignment: Assignment) -> None:
    if len(msgspec.msgpack.encode(assignment)) > _PART_BYTES:
        encode(AssignmentSet(2**62, 0, False, [assignment]))
