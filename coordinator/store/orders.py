"""What a session tells its node, in as few statements as possible: this stands between a change and the node that acts on it."""

import msgspec
from msgspec import structs
from sqlalchemy import and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import registries
from coordinator.store.mapping import Record
from coordinator.store.prepared import Prepared, Row
from coordinator.store.registries import RegistryRecord
from coordinator.store.tables import container, instance, node, organization, release
from shared.spec.container import Template
from shared.spec.instance import Goal, Phase
from shared.spec.release import Inherited, overlaid

Keys = dict[str, tuple[str, bool, int]]
"""Instance id → (goal, whether volumes go, how often its credentials changed): all that ever changes of an assignment once it
was made."""
_template = msgspec.json.Decoder(Template)
_variables = msgspec.json.Decoder(list[Inherited])
_CHUNK = 500


class Standing(msgspec.Struct, frozen=True):
    """`sequence` numbers the state of `keys`."""

    sequence: int
    keys: Keys


class Order(Record, frozen=True, kw_only=True):
    """An instance with all it takes to say what it is. `template` has what its release inherited. `registry`: whose credentials
    pull its image. `sealed_key`: its organisation's, None when that is gone."""

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
    registry: RegistryRecord | None = None


async def standing(conn: AsyncConnection, node_id: str) -> Standing | None:
    """The node's assignment set; None when the node is gone or removed."""
    rows = await _standing.all(conn, {"of_node": node_id})
    if not rows:
        return None
    keys = {key: (goal, bool(with_volumes), retold) for _, key, goal, with_volumes, retold in rows if key is not None}
    return Standing(rows[0][0], keys)


async def of_instances(conn: AsyncConnection, instance_ids: list[str]) -> list[Order]:
    """By id. Instances of one release share its template, and its registry."""
    templates: dict[str, Template] = {}
    found: list[Order] = []
    for row in await _rows(conn, instance_ids):
        values = dict(zip(_NAMES, row, strict=True))
        release_id, variables = values.pop("release_id"), values.pop("variables")
        if release_id not in templates:
            templates[release_id] = overlaid(_template.decode(values["template"]), _variables.decode(variables))
        found.append(Order(**{**values, "phase": Phase(values["phase"]), "template": templates[release_id]}))
    return sorted(await _with_registries(conn, found), key=lambda order: order.id)


async def _with_registries(conn: AsyncConnection, found: list[Order]) -> list[Order]:
    """Looked up now and not when the release was made: whoever rotates a password wants it to count."""
    wanting = {order.organization_id for order in found if order.goal != "remove"}
    known = await registries.of_organizations(conn, wanting)
    if not known:
        return found
    return [
        structs.replace(order, registry=registries.applying(order.template, known.get(order.organization_id, ())))
        for order in found
    ]


async def _rows(conn: AsyncConnection, instance_ids: list[str]) -> list[Row]:
    match instance_ids:
        case [one]:
            return [*await _one.all(conn, {"of_id": one})]
    found: list[Row] = []
    for start in range(0, len(instance_ids), _CHUNK):
        found += (await conn.execute(_select.where(instance.c.id.in_(instance_ids[start : start + _CHUNK])))).all()
    return found


_standing = Prepared(
    select(node.c.assignment_seq, instance.c.id, instance.c.goal, instance.c.remove_volumes, instance.c.retold)
    .outerjoin_from(node, instance, and_(instance.c.node_id == node.c.id, instance.c.phase != Phase.REMOVED))
    .where(node.c.id == bindparam("of_node"), node.c.revoked_at.is_(None))
)


_select = (
    select(
        *(instance.c[name] for name in ("id", "organization_id", "container_id", "slot", "revision", "goal", "phase")),
        instance.c.remove_volumes,
        instance.c.release_id,
        container.c.name.label("container_name"),
        release.c.template,
        release.c.variables,
        release.c.spec_hash,
        organization.c.sealed_key,
    )
    .join_from(instance, container, container.c.id == instance.c.container_id)
    .join(release, release.c.id == instance.c.release_id)
    .outerjoin(organization, organization.c.id == instance.c.organization_id)
)
_one = Prepared(_select.where(instance.c.id == bindparam("of_id")))
_NAMES = _select.selected_columns.keys()
