"""What the tests of the API call it with."""

from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import update

from coordinator.procedures import bearer
from coordinator.procedures.context import Services
from coordinator.store import deployments, instances, nodes, organizations, users
from coordinator.store.database import Store, Tx
from coordinator.store.instances import InstanceRecord
from coordinator.store.nodes import NodeRecord
from coordinator.store.organizations import MembershipRecord
from coordinator.store.tables import instance
from coordinator.store.users import ApiTokenRecord, UserRecord
from shared.kit.ids import new_id
from shared.kit.seal import SealingKey
from shared.spec.instance import Phase
from shared.spec.node import NodeFacts


@dataclass
class Api:
    """A caller with a token; `as_user` makes another one, with a role in the first organisation or none."""

    client: httpx.AsyncClient
    services: Services
    token: str

    @property
    def store(self) -> Store:
        return self.services.store

    async def call(self, procedure: str, /, expect: int = 200, *, method: str = "POST", **data: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        if method == "GET":
            response = await self.client.get(f"/api/{procedure}", params=data, headers=headers)
        else:
            response = await self.client.request(method, f"/api/{procedure}", json=data, headers=headers)
        assert response.status_code == expect, response.text
        if response.status_code == 204:
            return None
        body = response.json()
        return body["result"]["data"] if response.status_code < 400 else body["error"]

    async def as_user(self, email: str, role: str | None = None, organization_id: str = "") -> "Api":
        secret = bearer.new_secret()

        async def unit(tx: Tx) -> None:
            user = UserRecord(id=new_id("user"), email=email, name=email, proven=True, created_at=tx.now)
            await users.insert(tx, user)
            token = ApiTokenRecord(
                id=new_id("tok"),
                user_id=user.id,
                created_by=user.id,
                name="test",
                hash=bearer.hash_secret(secret),
                prefix="",
                created_at=tx.now,
            )
            await users.insert_token(tx, token)
            if role:
                record = MembershipRecord(organization_id=organization_id, user_id=user.id, role=role, joined_at=tx.now)
                await organizations.join(tx, record)

        await self.store.write(unit)
        return Api(self.client, self.services, secret)


@dataclass
class Home:
    organization_id: str
    project_id: str
    cluster_id: str


async def make(api: Api, home: Home, *, name: str = "web", expect: int = 201, **fields: Any) -> Any:
    declared = {"image": "web:1", "projectId": home.project_id, "clusterId": home.cluster_id, "name": name, **fields}
    return await api.call("container.create", expect, **declared)


async def finish(api: Api, deployment_id: str, status: str = "succeeded") -> None:
    """What the rollout would do in the end."""

    async def unit(tx: Tx) -> None:
        assert await deployments.change(tx, deployment_id, status=status, active=False)

    await api.store.write(unit)


async def enrolled(api: Api, home: Home, name: str, **fields: Any) -> str:
    """A node of the first cluster."""
    record = NodeRecord(
        id=new_id("node"),
        organization_id=home.organization_id,
        **{"cluster_id": home.cluster_id, **fields},
        name=name,
        role="worker",
        signing_key=name.encode().ljust(32, b"."),
        sealing_key=SealingKey.generate().public,
        facts=NodeFacts(cpu_millis=4000, memory_bytes=8 * 2**30),
        enrolled_at=0.0,
    )

    async def unit(tx: Tx) -> None:
        await nodes.insert(tx, record)

    await api.store.write(unit)
    return record.id


async def running_instance(api: Api, home: Home, made: dict[str, Any], node_id: str, slot: int = 0) -> str:
    """An instance of a container, as if it ran on that node: half a processor, one GiB."""
    instance_id = new_id("inst")

    async def unit(tx: Tx) -> None:
        record = InstanceRecord(
            id=instance_id,
            organization_id=home.organization_id,
            container_id=made["id"],
            cluster_id=home.cluster_id,
            release_id=made["release"]["id"],
            revision=1,
            slot=slot,
            cpu_millis=500,
            memory_bytes=2**30,
            created_at=tx.now,
            updated_at=tx.now,
        )
        await instances.insert(tx, [record])
        bound = update(instance).where(instance.c.id == instance_id)
        await tx.conn.execute(bound.values(node_id=node_id, phase=int(Phase.RUNNING)))
        tx.changed("instance", made["id"])

    await api.store.write(unit)
    return instance_id
