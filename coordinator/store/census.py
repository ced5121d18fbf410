"""How many of what there are, for metrics: one grouped count per noun."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.tables import container, deployment, instance, node
from shared.spec.instance import Phase


class Census(Struct, frozen=True):
    """(organisation, word) → number. Nodes by availability or `lost`, instances by phase, containers by what is desired of them."""

    nodes: dict[tuple[str, str], int]
    instances: dict[tuple[str, str], int]
    containers: dict[tuple[str, str], int]
    deployments: dict[str, int]


async def take(conn: AsyncConnection, organization_ids: Iterable[str]) -> Census:
    wanted = list(organization_ids)
    nodes: dict[tuple[str, str], int] = {}
    columns = (node.c.organization_id, node.c.availability, node.c.lost)
    query = select(*columns, func.count()).where(node.c.organization_id.in_(wanted), node.c.revoked_at.is_(None))
    for organization_id, availability, lost, count in await conn.execute(query.group_by(*columns)):
        key = organization_id, "lost" if lost else availability
        nodes[key] = nodes.get(key, 0) + count
    phases = await _count(conn, instance.c.organization_id, instance.c.phase, wanted)
    active = (
        select(container.c.organization_id, func.count())
        .join_from(deployment, container, deployment.c.container_id == container.c.id)
        .where(container.c.organization_id.in_(wanted), deployment.c.active.is_(True))
        .group_by(container.c.organization_id)
    )
    return Census(
        nodes=nodes,
        instances={(owner, Phase(phase).word): count for (owner, phase), count in phases.items()},
        containers=await _count(conn, container.c.organization_id, container.c.desired, wanted),
        deployments={row[0]: row[1] for row in await conn.execute(active)},
    )


async def _count(conn: AsyncConnection, owner: Any, word: Any, wanted: list[str]) -> dict[tuple[str, Any], int]:
    query = select(owner, word, func.count()).where(owner.in_(wanted)).group_by(owner, word)
    return {(row[0], row[1]): row[2] for row in await conn.execute(query)}
