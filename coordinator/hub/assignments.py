"""From instance and release to what a node is told: the template resolved, its secrets revealed and sealed to the node's key.

Plaintext secrets exist here for the time of one call. What cannot be told (a secret that does not open, a declaration too large
for a frame) becomes a reason instead, and never stops the rest of the set.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import structlog

from coordinator.store import registries
from coordinator.store.instances import InstanceRecord
from coordinator.store.orders import Order
from coordinator.store.vault import REGISTRY_KEY, Compartment, Vault, VaultError, env_context
from shared.kit.seal import SealError, seal
from shared.spec.container import HealthCheck, Template, all_ports
from shared.spec.instance import (
    TERMINAL,
    VOLUME_PREFIX,
    Assignment,
    Goal,
    InstanceSecrets,
    InstanceSpec,
    InstanceVolume,
)
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


def build(vault: Vault, to: Recipient, orders: Iterable[Order], *, complete: bool) -> Built:
    """`complete`: for a set rather than a delta. What is over there and should run is then named as to be kept stopped, because a
    node that has lost its journal would start it afresh."""
    compartments = _Compartments(vault)
    built = Built()
    for order in orders:
        goal: Goal = "stop" if complete and order.goal == "run" and order.phase in TERMINAL else order.goal
        try:
            # A tombstone needs no secrets: it must reach the node even when they no longer open.
            sealed = b"" if goal == "remove" else _sealed(order, compartments, to)
            assignment = _fitting(_assignment(order, goal, sealed))
        except (SealError, VaultError, ValueError) as error:
            log.error("secrets of an instance cannot be read", instance=order.id, error=str(error))
            built.refused[order.id] = Reason(SECRETS_UNREADABLE, f"its secrets cannot be read: {error}")
        except FrameError as error:
            built.refused[order.id] = Reason(INVALID, f"its declaration is too large to be sent: {error}")
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
    return f"{VOLUME_PREFIX}{container_id}_{slot}_{name}"


def _health_check(template: Template) -> HealthCheck | None:
    check = template.health_check
    if check is None or check.type == "exec" or check.port is not None:
        return check
    return msgspec.structs.replace(check, port=template.port)


class _Compartments:
    """Each organisation's, unlocked when first needed: an instance without secrets never needs it."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._open: dict[str, Compartment] = {}

    def of(self, order: Order) -> Compartment:
        """Raises VaultError."""
        if order.sealed_key is None:
            raise VaultError("their organisation is gone")
        found = self._open.get(order.organization_id)
        if found is None:
            found = self._open[order.organization_id] = self._vault.unlock(order.sealed_key, order.organization_id)
        return found


def _assignment(order: Order, goal: Goal, sealed: bytes) -> Assignment:
    volumes = [volume for volume in order.template.volumes if volume.host_path is None] if order.remove_volumes else []
    return Assignment(
        instance_id=order.id,
        container_id=order.container_id,
        container_name=order.container_name,
        slot=order.slot,
        revision=order.revision,
        spec_hash=order.spec_hash,
        goal=goal,
        spec=resolve(order.template, order.container_id, order.slot, sealed),
        remove_volumes=[volume_name(order.container_id, order.slot, volume.name) for volume in volumes],
    )


def _sealed(order: Order, compartments: _Compartments, to: Recipient) -> bytes:
    secret = [var for var in order.template.env if var.secret]
    if not secret and order.template.credentials is None and order.registry is None:
        return b""
    compartment = compartments.of(order)
    username, password = _login(order, compartment)
    env = {var.key: compartment.reveal(var.value, env_context(order.container_id, var.key)) for var in secret}
    if not env and not username:
        return b""
    plain = InstanceSecrets(env=env, username=username, password=password)
    return seal(to.sealing_key, msgspec.msgpack.encode(plain), order.id.encode())


def _login(order: Order, compartment: Compartment) -> tuple[str, str]:
    """What the image is pulled with: the container's own credentials, else those of its registry, as they are now."""
    own = order.template.credentials
    if own is not None:
        password = compartment.reveal(own.password, env_context(order.container_id, REGISTRY_KEY))
        return own.username, password
    found = registries.login(order.registry, compartment) if order.registry is not None else None
    return found or ("", "")


def _fitting(assignment: Assignment) -> Assignment:
    """What fits a frame. Of what is only to be removed the declaration may be left out, or it could never go; the agent then
    stops it with a grace period of its own. Raises FrameError."""
    if len(msgspec.msgpack.encode(assignment)) <= _PART_BYTES:
        return assignment
    try:
        encode(AssignmentSet(2**62, 0, False, [assignment]))
    except FrameError:
        if assignment.goal != "remove":
            raise
        return msgspec.structs.replace(assignment, spec=None)
    return assignment
