"""A store with an organisation, a project and a cluster in it, and short ways to put nodes, containers and instances there."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import update

from coordinator.store import (
    clusters,
    containers,
    instances,
    nodes,
    organizations,
    projects,
    releases,
    reports,
    volumes,
)
from coordinator.store.clusters import ClusterRecord
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Store
from coordinator.store.instances import InstanceRecord
from coordinator.store.nodes import NodeRecord
from coordinator.store.organizations import OrganizationRecord
from coordinator.store.projects import EnvironmentRecord, ProjectRecord
from coordinator.store.releases import ReleaseRecord
from coordinator.store.tables import instance
from coordinator.store.volumes import VolumeRecord
from coordinator.store.writer import Tx
from shared.kit.ids import new_id
from shared.spec import release as release_spec
from shared.spec.container import Template, cpu_request, memory_request
from shared.spec.instance import Health, InstanceReport, Phase
from shared.spec.node import NodeFacts

GIB = 2**30
PATIENCE = 10.0


async def until(holds: Callable[[], Awaitable[Any]], what: str = "the condition") -> Any:
    """Wait for a truthy answer and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := await holds()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.01)
    return answer


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Loops at work for the length of a block. One that ends or fails by itself fails the test."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        yield
        for task in tasks:
            assert not task.done()
            task.cancel()


class Seeds:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.organization_id = new_id("org")
        self.project_id = new_id("proj")
        self.environment_id = new_id("env")
        self.cluster_id = new_id("cluster")
        self.sealed_key = b"key"

    async def plant(self) -> "Seeds":
        async def unit(tx: Tx) -> None:
            organization = OrganizationRecord(
                id=self.organization_id, name="Acme", sealed_key=self.sealed_key, created_at=tx.now
            )
            await organizations.insert(tx, organization)
            cluster = ClusterRecord(
                id=self.cluster_id,
                organization_id=self.organization_id,
                name="main",
                provider="byo",
                region="",
                orchestrator="docker",
                created_at=tx.now,
            )
            await clusters.insert(tx, cluster)
            project = ProjectRecord(
                id=self.project_id, organization_id=self.organization_id, name="shop", created_at=tx.now
            )
            await projects.insert(tx, project)
            environment = EnvironmentRecord(
                id=self.environment_id, project_id=self.project_id, name="production", created_at=tx.now
            )
            await projects.insert_environment(tx, environment)

        await self.store.write(unit)
        return self

    async def node(self, name: str, **changes: Any) -> str:
        """A healthy one with 4 processors and 8 GiB, unless `changes` say otherwise."""
        facts = NodeFacts(
            hostname=name,
            address="10.0.0.1",
            platform="linux/amd64",
            cpu_millis=4000,
            memory_bytes=8 * GIB,
            disk_bytes=100 * GIB,
            disk_free=50 * GIB,
        )
        values: dict[str, Any] = {"facts": facts, "cluster_id": self.cluster_id, **changes}

        async def unit(tx: Tx) -> str:
            record = NodeRecord(
                id=f"node_{name}",
                organization_id=self.organization_id,
                name=name,
                role="worker",
                signing_key=name.encode().ljust(32, b"."),
                sealing_key=bytes(32),
                enrolled_at=tx.now,
                **values,
            )
            await nodes.insert(tx, record)
            return record.id

        return await self.store.write(unit)

    async def container(self, name: str, template: Template | None = None, *, replicas: int = 1) -> str:
        """One with its first release in force, and no instance yet."""
        template = template or Template(image="web:1")

        async def unit(tx: Tx) -> str:
            record = ContainerRecord(
                id=new_id("ctr"),
                organization_id=self.organization_id,
                project_id=self.project_id,
                environment_id=self.environment_id,
                cluster_id=self.cluster_id,
                name=name,
                template=template,
                declared_replicas=replicas,
                replicas=replicas,
                last_revision=1,
                created_at=tx.now,
            )
            await containers.insert(tx, record)
            release = _release(record.id, 1, template, tx.now)
            await releases.insert(tx, release)
            await containers.change(tx, record.id, target_release_id=release.id)
            return record.id

        return await self.store.write(unit)

    async def release(self, container_id: str, template: Template) -> None:
        """The next one, in force at once."""

        async def unit(tx: Tx) -> None:
            revision = await containers.next_revision(tx, container_id)
            assert revision is not None
            made = _release(container_id, revision, template, tx.now)
            await releases.insert(tx, made)
            await containers.change(tx, container_id, target_release_id=made.id)

        await self.store.write(unit)

    async def retire(self, *instance_ids: str) -> None:
        await self.store.write(lambda tx: instances.set_goal(tx, instance_ids, "remove"))

    async def pending(self, container_id: str, *slots: int, **changes: Any) -> list[str]:
        """Instances of the release in force, as the orchestrator makes them."""

        async def unit(tx: Tx) -> list[str]:
            container = await containers.get(tx.conn, container_id)
            assert container is not None
            release = await releases.get(tx.conn, container.target_release_id or "")
            assert release is not None
            template = release.template
            records = [
                InstanceRecord(
                    id=new_id("inst"),
                    organization_id=self.organization_id,
                    container_id=container_id,
                    cluster_id=self.cluster_id,
                    release_id=release.id,
                    revision=release.revision,
                    slot=slot,
                    cpu_millis=cpu_request(template.resources),
                    memory_bytes=memory_request(template.resources),
                    host_ports=[(port.host_port, port.protocol) for port in template.ports if port.host_port],
                    created_at=tx.now,
                    updated_at=tx.now,
                    **changes,
                )
                for slot in slots
            ]
            await instances.insert(tx, records)
            return [record.id for record in records]

        return await self.store.write(unit)

    async def bound(self, container_id: str, node_id: str, *slots: int) -> list[str]:
        """Instances that run healthy on a node."""
        made = await self.pending(container_id, *slots)
        await self.store.write(lambda tx: instances.assign(tx, dict.fromkeys(made, node_id)))
        for instance_id in made:
            await self.report(instance_id, Phase.RUNNING, health="healthy")
        return made

    async def volume(self, container_id: str, slot: int, name: str, node_id: str) -> None:
        async def unit(tx: Tx) -> None:
            record = VolumeRecord(
                id=new_id("vol"), container_id=container_id, slot=slot, name=name, node_id=node_id, created_at=tx.now
            )
            await volumes.insert(tx, [record])

        await self.store.write(unit)

    async def report(self, instance_id: str, phase: Phase, *, health: Health = "unknown", **says: Any) -> None:
        """The node's own word, by the way every report takes."""
        record = await self.instance(instance_id)
        assert record.node_id is not None
        node_id = record.node_id
        if phase >= Phase.STARTING and phase is not Phase.REJECTED:
            says.setdefault("started_at", 1.0)

        async def unit(tx: Tx) -> None:
            report = InstanceReport(instance_id, max(1, record.attempt), phase, health=health, **says)
            epoch = await nodes.epoch(tx.conn, node_id)
            assert epoch is not None
            applied = await reports.apply_reports(tx, node_id, epoch, [report])
            assert applied.accepted == 1

        await self.store.write(unit)

    async def instance(self, instance_id: str) -> InstanceRecord:
        async with self.store.read() as conn:
            record = await instances.get(conn, instance_id)
        assert record is not None
        return record

    async def at(self, node_id: str) -> NodeRecord:
        async with self.store.read() as conn:
            record = await nodes.get(conn, node_id)
        assert record is not None
        return record

    async def where(self, *instance_ids: str) -> list[str | None]:
        async with self.store.read() as conn:
            found = await instances.of_ids(conn, instance_ids)
        return [found[instance_id].node_id for instance_id in instance_ids]

    async def change_node(self, node_id: str, **changes: Any) -> None:
        await self.store.write(lambda tx: nodes.change(tx, node_id, **changes))

    async def change_container(self, container_id: str, **changes: Any) -> None:
        await self.store.write(lambda tx: containers.change(tx, container_id, **changes))

    async def backdate(self, seconds: float, *instance_ids: str) -> None:
        """Let these have been written earlier."""

        async def unit(tx: Tx) -> None:
            written = update(instance).where(instance.c.id.in_(instance_ids))
            await tx.conn.execute(written.values(updated_at=instance.c.updated_at - seconds))

        await self.store.write(unit)

    async def sequence(self, node_id: str) -> int:
        return (await self.at(node_id)).assignment_seq


def _release(container_id: str, revision: int, template: Template, now: float) -> ReleaseRecord:
    return ReleaseRecord(
        id=new_id("rel"),
        container_id=container_id,
        revision=revision,
        template=template,
        spec_hash=release_spec.spec_hash(template),
        image=template.image,
        created_by="user_1",
        created_at=now,
    )
