"""What a session tells its node, in as few statements as possible: this stands between a change and the node that acts on it."""

import msgspec
from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Record
from coordinator.store.tables import container, instance, node, organization, release
from shared.spec.container import Template
from shared.spec.instance import Goal, Phase

Keys = dict[str, tuple[str, bool]]
"""Instance id → (goal, whether volumes go): all that ever changes of an assignment once it was made."""
_template = msgspec.json.Decoder(Template)
_CHUNK = 500


class Standing(msgspec.Struct, frozen=True):
    """`sequence` numbers the state of `keys`."""

    sequence: int
    keys: Keys


class Order(Record, frozen=True, kw_only=True):
    """An instance with all it takes to say what it is. `sealed_key`: its organisation's, None when that is gone."""

    id: str
    organization_id: str
    container_id: str
    container_name: str
    slot: int
    revision: int
    goal: Goal
    phase: Phase
    remove_volumes: bool
    template: Template
    spec_hash: str
    sealed_key: bytes | None


async def standing(conn: AsyncConnection, node_id: str) -> Standing | None:
    """The node's assignment set; None when the node is gone or removed."""
    i = instance.c
    bound = and_(i.node_id == node.c.id, i.phase != Phase.REMOVED)
    statement = (
        select(node.c.assignment_seq, i.id, i.goal, i.remove_volumes)
        .outerjoin_from(node, instance, bound)
        .where(node.c.id == node_id, node.c.revoked_at.is_(None))
    )
    rows = (await conn.execute(statement)).all()
    if not rows:
        return None
    keys = {row.id: (row.goal, bool(row.remove_volumes)) for row in rows if row.id is not None}
    return Standing(rows[0].assignment_seq, keys)


async def of_instances(conn: AsyncConnection, instance_ids: list[str]) -> list[Order]:
    """By id. Instances of one release share its template."""
    templates: dict[str, Template] = {}
    found: list[Order] = []
    for start in range(0, len(instance_ids), _CHUNK):
        for row in await conn.execute(_select.where(instance.c.id.in_(instance_ids[start : start + _CHUNK]))):
            if row.release_id not in templates:
                templates[row.release_id] = _template.decode(row.template)
            found.append(_order(row._mapping, templates[row.release_id]))
    return sorted(found, key=lambda order: order.id)


def _order(row: object, template: Template) -> Order:
    values = dict(row)  # type: ignore[call-overload]
    del values["release_id"]
    return Order(**{**values, "phase": Phase(values["phase"]), "template": template})


_select = (
    select(
        *(instance.c[name] for name in ("id", "organization_id", "container_id", "slot", "revision", "goal", "phase")),
        instance.c.remove_volumes,
        instance.c.release_id,
        container.c.name.label("container_name"),
        release.c.template,
        release.c.spec_hash,
        organization.c.sealed_key,
    )
    .join_from(instance, container, container.c.id == instance.c.container_id)
    .join(release, release.c.id == instance.c.release_id)
    .outerjoin(organization, organization.c.id == instance.c.organization_id)
)
