"""Starting a deployment: the one way a container's release changes, whoever asks and whatever for."""

from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import structs

from coordinator.core import rollout
from coordinator.errors import TooManyRequests
from coordinator.procedures import inheriting
from coordinator.procedures.context import Context
from coordinator.store import approvals, containers, deployments, numbering, releases
from coordinator.store.approvals import ApprovalRecord
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.deployments import DeploymentRecord, PastRelease
from coordinator.store.releases import ReleaseRecord
from shared.kit.ids import new_id
from shared.spec.container import Template
from shared.spec.release import Inherited, spec_hash

Kind = Literal["create", "deploy", "rollback", "restart"]
_OF_THE_QUOTA = ("create", "deploy")
"""What brings something new. Nobody is kept from going back, or from a restart."""


async def new_release(
    tx: Tx, context: Context, container: ContainerRecord, template: Template, note: str
) -> ReleaseRecord:
    """Freeze `template`, and what it inherits, as the container's next release. Raises BadRequest."""
    variables = await inheriting.freeze(tx, context, container, template)
    return await _insert(tx, context, container.id, template, variables, note)


async def repeat_release(tx: Tx, context: Context, release: ReleaseRecord, note: str) -> ReleaseRecord:
    """The same once more, with what it inherited then: only a deploy brings changes into force."""
    return await _insert(tx, context, release.container_id, release.template, release.variables, note)


async def _insert(
    tx: Tx, context: Context, container_id: str, template: Template, variables: list[Inherited], note: str
) -> ReleaseRecord:
    revision = await containers.next_revision(tx, container_id)
    assert revision is not None, "the caller has read the container in this transaction"
    record = ReleaseRecord(
        id=new_id("rel"),
        container_id=container_id,
        revision=revision,
        template=template,
        variables=variables,
        spec_hash=spec_hash(template, variables),
        image=template.image,
        note=note,
        created_by=context.user.user_id,
        created_at=tx.now,
    )
    await releases.insert(tx, record)
    return record


async def start(
    tx: Tx, context: Context, container: ContainerRecord, release: ReleaseRecord, kind: Kind, note: str = ""
) -> DeploymentRecord:
    """Move the container to `release`, or ask for an approval to do so and touch nothing that runs. What was under way, or waited,
    is superseded: of a container's deployments the newest counts. Only a deploy brings the declared number of replicas into force;
    a restart or a rollback leaves it as it runs. Raises TooManyRequests when the day's quota is used up."""
    record = DeploymentRecord(
        id=new_id("dep"),
        container_id=container.id,
        number=await _number(tx, context, container.organization_id, kind),
        kind=kind,
        release_id=release.id,
        replicas=container.declared_replicas if kind == "deploy" else None,
        status="pending",
        active=False,
        held=True,
        note=note,
        created_by=context.user.user_id,
        created_at=tx.now,
    )
    await _end_waiting(tx, container.id, f"superseded by {record.id}")
    if not context.waits:
        return await _carry_out(tx, container, record, deployments.insert)
    await deployments.insert(tx, record)
    await approvals.insert(
        tx,
        ApprovalRecord(
            id=new_id("apr"),
            deployment_id=record.id,
            environment_id=container.environment_id,
            requested_by=context.user.user_id,
            created_at=tx.now,
        ),
    )
    return record


async def _number(tx: Tx, context: Context, organization_id: str, kind: Kind) -> int:
    quota = context.services.deploys_per_day
    counted = await numbering.next_deployment(tx, organization_id, counts=kind in _OF_THE_QUOTA)
    if quota and kind in _OF_THE_QUOTA and counted.today > quota:
        left = int(numbering.DAY_SECONDS - tx.now % numbering.DAY_SECONDS) + 1
        raise TooManyRequests(f"the organization's {quota} deploys of today (UTC) are used up", left)
    return counted.number


async def release_held(tx: Tx, container: ContainerRecord, record: DeploymentRecord) -> DeploymentRecord:
    """Carry out what waited, from the state the container is in now."""
    return await _carry_out(tx, container, record, _put)


async def drop_held(tx: Tx, record: DeploymentRecord, why: str) -> None:
    """It never touched what runs, so nothing has to be taken back."""
    await deployments.change(tx, record.id, status="cancelled", error=why, finished_at=tx.now)


async def _carry_out(
    tx: Tx,
    container: ContainerRecord,
    record: DeploymentRecord,
    write: Callable[[Tx, DeploymentRecord], Awaitable[None]],
) -> DeploymentRecord:
    """A stopped container starts: nobody deploys to look at nothing."""
    running = await deployments.active_of(tx.conn, container.id)
    healthy = _last_healthy(container, running)
    begun = structs.replace(record, status="in_progress", active=True, held=False, previous_release_id=healthy)
    if running is not None:
        await deployments.change(
            tx,
            running.id,
            status="cancelled",
            active=False,
            error=f"superseded by {record.id}",
            finished_at=tx.now,
        )
    await write(tx, begun)
    await containers.change(
        tx,
        container.id,
        target_release_id=record.release_id,
        healthy_release_id=healthy,
        replicas=container.replicas if record.replicas is None else record.replicas,
        desired="running",
        last_deployed_at=tx.now,
    )
    return begun


async def _put(tx: Tx, record: DeploymentRecord) -> None:
    names = ("status", "active", "held", "previous_release_id")
    await deployments.change(tx, record.id, **{name: getattr(record, name) for name in names})


async def _end_waiting(tx: Tx, container_id: str, why: str) -> None:
    waiting = await deployments.waiting_of(tx.conn, container_id)
    if waiting is not None:
        await drop_held(tx, waiting, why)
        await approvals.settle(tx, waiting.id, "withdrawn")


def rollback_target(past: list[PastRelease], in_force: str | None) -> str | None:
    """The newest release before the one in force that succeeded and runs something else. A restart repeats the release before it
    with the same content, so it counts as that one: going back again after it goes further back, never forth."""
    current = next((one for one in past if one.release_id == in_force), None)
    if current is None:
        return None
    limit = _original(past, current).revision
    proven = {_original(past, one).release_id for one in past if one.succeeded}
    earlier = (one for one in past if one.revision < limit and one.spec_hash != current.spec_hash)
    found = max((one for one in earlier if one.release_id in proven), key=lambda one: one.revision, default=None)
    return found.release_id if found is not None else None


def _original(past: list[PastRelease], one: PastRelease) -> PastRelease:
    """What a restart, or a restart of a restart, repeats: the newest release before it with its content."""
    while one.restarted:
        same = [each for each in past if each.revision < one.revision and each.spec_hash == one.spec_hash]
        if not same:
            break
        one = max(same, key=lambda each: each.revision)
    return one


def _last_healthy(container: ContainerRecord, running: DeploymentRecord | None) -> str | None:
    """What a failed deployment returns to. A release whose instances were all healthy counts, even when a newer one comes before
    its watch is over: the container said `running`, and going further back would end instances that serve."""
    if running is not None and rollout.load(running.state).stage == "monitoring":
        return running.release_id
    return container.healthy_release_id
