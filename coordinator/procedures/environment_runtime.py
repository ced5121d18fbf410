"""What an environment serves at the moment: its containers with what is in force, their instances, and where they are reached."""

from coordinator.control import snapshots
from coordinator.control.snapshots import Snapshot
from coordinator.core.explain import container_status
from coordinator.procedures import scopes
from coordinator.procedures.container_views import (
    InstanceRow,
    ReasonView,
    ReleaseView,
    instance_rows,
    reason_view,
    release_view,
)
from coordinator.procedures.context import Context
from coordinator.procedures.environment import EnvironmentId
from coordinator.procedures.inputs import View
from coordinator.procedures.table import procedure
from coordinator.store import containers
from coordinator.store.instances import InstanceRecord
from shared.spec.instance import Phase, PortBinding


class ContainerRuntime(View, frozen=True):
    """`urls`: of the published TCP ports of its healthy instances; what is not healthy at the moment has none. `release`: the one
    in force. `deploymentId`: of the deployment under way."""

    container_id: str
    name: str
    status: str
    reason: ReasonView | None
    replicas: int
    urls: list[str]
    release: ReleaseView | None
    deployment_id: str | None
    instances: list[InstanceRow]


class EnvironmentRuntime(View, frozen=True):
    """`urls`: of all its containers. `domains`: names that lead there."""

    environment_id: str
    project_id: str
    name: str
    urls: list[str]
    containers: list[ContainerRuntime]
    domains: list[str]


@procedure("environment.runtime", "GET", "viewer", scopes.environment, rest="/environments/{environmentId}/runtime")
async def runtime(context: Context, data: EnvironmentId) -> EnvironmentRuntime:
    """What runs in an environment now: the release in force of each container, its instances, and the URLs of the healthy ones."""
    async with context.services.store.read() as conn:
        found = await containers.of_environment(conn, data.environment_id)
        loaded = await snapshots.load(conn, [record.id for record in found])
    shown = [_container(loaded[record.id], context.now()) for record in found if record.id in loaded]
    return EnvironmentRuntime(
        environment_id=context.record.id,
        project_id=context.record.project_id,
        name=context.record.name,
        urls=[url for one in shown for url in one.urls],
        containers=shown,
        domains=[],
    )


def _container(snapshot: Snapshot, now: float) -> ContainerRuntime:
    record = snapshot.container
    status = container_status(snapshot.overview(), now)
    release = snapshot.release(record.target_release_id)
    return ContainerRuntime(
        container_id=record.id,
        name=record.name,
        status=status.word,
        reason=reason_view(status.reason),
        replicas=record.replicas,
        urls=_urls(snapshot),
        release=release_view(release) if release else None,
        deployment_id=snapshot.active.id if snapshot.active else None,
        instances=instance_rows(snapshot),
    )


def _urls(snapshot: Snapshot) -> list[str]:
    serving = [one for one in snapshot.instances if _serves(snapshot, one)]
    return [_url(port) for one in serving for port in one.ports if port.protocol == "tcp" and port.address]


def _serves(snapshot: Snapshot, record: InstanceRecord) -> bool:
    """As it may be told, not as it was last seen: of an engine that does not answer nobody knows what it serves."""
    view = snapshot.instance_view(record)
    return view.phase is Phase.RUNNING and view.health == "healthy" and view.goal == "run" and not view.lost


def _url(port: PortBinding) -> str:
    host = f"[{port.address}]" if ":" in port.address else port.address
    return f"http://{host}:{port.host_port}"
