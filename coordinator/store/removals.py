"""An organisation's end, in two steps: at once it is nobody's any more, and once its nodes have torn down what ran it is no more.

What stays is what others need: the ledger, the revoked nodes (so that an agent that calls again is told why), and the
organisation's row as the thing both belong to, with its data key destroyed: no copy of the database reads its secrets again.
"""

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import nodes
from coordinator.store.tables import (
    api_token,
    cluster,
    cluster_grant,
    container,
    environment,
    instance,
    invitation,
    join_token,
    log_drain,
    membership,
    node,
    organization,
    project,
    registry,
    variable,
    variable_version,
)
from coordinator.store.writer import Tx
from shared.spec.instance import Phase

LOST_PATIENCE_SECONDS = 24 * 3600.0
"""A node that is lost for so long while its organisation goes is given up: nobody is left who could say so."""


async def lost_with_work(conn: AsyncConnection, organization_id: str) -> list[str]:
    """Names of nodes that are not heard of and may still run something."""
    holding = (
        select(instance.c.id).where(instance.c.node_id == node.c.id, instance.c.phase != int(Phase.REMOVED)).exists()
    )
    here = (node.c.organization_id == organization_id, node.c.lost.is_(True), node.c.revoked_at.is_(None))
    statement = select(node.c.name).where(*here, holding).order_by(node.c.name)
    return [row.name for row in await conn.execute(statement)]


async def begin(tx: Tx, organization_id: str) -> None:
    """Nobody belongs to it from here on, nothing opens it, and everything it runs is to go."""
    await _shut_out(tx, organization_id)
    for table in (invitation, join_token, log_drain):
        await tx.conn.execute(delete(table).where(table.c.organization_id == organization_id))
    ended = update(organization).where(organization.c.id == organization_id).values(removed_at=tx.now)
    await tx.conn.execute(ended)
    going = (
        update(container)
        .where(container.c.organization_id == organization_id, container.c.desired != "removed")
        .values(desired="removed", version=container.c.version + 1)
        .returning(container.c.id)
    )
    for row in (await tx.conn.execute(going)).all():
        tx.changed("container", row.id)
    tx.changed("drain", organization_id)
    await finish(tx, organization_id)


async def finish(tx: Tx, organization_id: str) -> bool:
    """Delete what is left of a removed organisation and let its nodes go. False, and nothing is done, while it has containers or
    was not removed."""
    gone = select(organization.c.id).where(organization.c.id == organization_id, organization.c.removed_at.is_not(None))
    held = select(container.c.id).where(container.c.organization_id == organization_id).limit(1)
    if (await tx.conn.execute(gone)).first() is None or (await tx.conn.execute(held)).first() is not None:
        return False
    members = select(node.c.id).where(node.c.organization_id == organization_id, node.c.revoked_at.is_(None))
    for row in (await tx.conn.execute(members)).all():
        await nodes.revoke(tx, row.id)
    await _delete_places(tx, organization_id)
    blank = update(organization).where(organization.c.id == organization_id).values(sealed_key=b"", description="")
    await tx.conn.execute(blank)
    return True


async def give_up_lost(tx: Tx) -> int:
    """Revoke the nodes of removed organisations that are lost for too long; what was on them then counts as ended."""
    long_lost = (
        select(node.c.id)
        .join_from(node, organization, node.c.organization_id == organization.c.id)
        .where(organization.c.removed_at.is_not(None), node.c.revoked_at.is_(None))
        .where(node.c.lost.is_(True), node.c.lost_at < tx.now - LOST_PATIENCE_SECONDS)
    )
    found = (await tx.conn.execute(long_lost)).all()
    for row in found:
        await nodes.revoke(tx, row.id)
    return len(found)


async def _shut_out(tx: Tx, organization_id: str) -> None:
    members = select(membership.c.user_id).where(membership.c.organization_id == organization_id)
    services = select(api_token.c.id).where(api_token.c.organization_id == organization_id)
    for statement in (members, services):
        for (key,) in (await tx.conn.execute(statement)).all():
            tx.changed("access", key)
    clusters = select(cluster.c.id).where(cluster.c.organization_id == organization_id)
    await tx.conn.execute(delete(cluster_grant).where(cluster_grant.c.cluster_id.in_(clusters)))
    for table in (membership, api_token):
        await tx.conn.execute(delete(table).where(table.c.organization_id == organization_id))


async def _delete_places(tx: Tx, organization_id: str) -> None:
    """In the order that foreign keys ask for."""
    variables = select(variable.c.id).where(variable.c.organization_id == organization_id)
    await tx.conn.execute(delete(variable_version).where(variable_version.c.variable_id.in_(variables)))
    for table in (variable, registry):
        await tx.conn.execute(delete(table).where(table.c.organization_id == organization_id))
    projects = select(project.c.id).where(project.c.organization_id == organization_id)
    await tx.conn.execute(delete(environment).where(environment.c.project_id.in_(projects)))
    await tx.conn.execute(delete(project).where(project.c.organization_id == organization_id))
    await tx.conn.execute(update(node).where(node.c.organization_id == organization_id).values(cluster_id=None))
    await tx.conn.execute(delete(cluster).where(cluster.c.organization_id == organization_id))
