"""Starting a deployment: the one way a container's release changes, whoever asks and whatever for."""

from typing import Literal

from coordinator.core import rollout
from coordinator.procedures.context import Context
from coordinator.store import containers, deployments, releases
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.deployments import DeploymentRecord, PastRelease
from coordinator.store.releases import ReleaseRecord
from shared.kit.ids import new_id
from shared.spec.container import Template
from shared.spec.release import spec_hash

Kind = Literal["create", "deploy", "rollback", "restart"]


async def new_release(tx: Tx, context: Context, container_id: str, template: Template, note: str) -> ReleaseRecord:
    """Freeze `template` as the container's next release."""
    revision = await containers.next_revision(tx, container_id)
    assert revision is not None, "the caller has read the container in this transaction"
    record = ReleaseRecord(
        id=new_id("rel"),
        container_id=container_id,
        revision=revision,
        template=template,
        spec_hash=spec_hash(template),
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
    """Move the container to `release`. What was under way is superseded, and a stopped container starts: nobody deploys to look at
    nothing. Only a deploy brings the declared number of replicas into force; a restart or a rollback leaves it as it runs."""
    running = await deployments.active_of(tx.conn, container.id)
    healthy = _last_healthy(container, running)
    record = DeploymentRecord(
        id=new_id("dep"),
        container_id=container.id,
        kind=kind,
        release_id=release.id,
        previous_release_id=healthy,
        status="in_progress",
        note=note,
        created_by=context.user.user_id,
        created_at=tx.now,
    )
    if running is not None:
        await deployments.change(
            tx,
            running.id,
            status="cancelled",
            active=False,
            error=f"superseded by {record.id}",
            finished_at=tx.now,
        )
    await deployments.insert(tx, record)
    await containers.change(
        tx,
        container.id,
        target_release_id=release.id,
        healthy_release_id=healthy,
        replicas=container.declared_replicas if kind == "deploy" else container.replicas,
        desired="running",
        last_deployed_at=tx.now,
    )
    return record


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
