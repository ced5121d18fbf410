"""An organisation's deployments, counted: which number the next one has, and how many of today count against the quota.

One statement does both. It locks the organisation's row until the transaction ends, so that no number is given twice and no quota
passed by two at once; a transaction that is undone takes its number and its place in the quota back.
"""

from dataclasses import dataclass

from sqlalchemy import Integer, bindparam, case, update

from coordinator.store.prepared import Prepared
from coordinator.store.tables import organization
from coordinator.store.writer import Tx

DAY_SECONDS = 86_400
_c = organization.c
_day = bindparam("of_day", type_=Integer)
_counts = bindparam("of_counts", type_=Integer)
_count = Prepared(
    update(organization)
    .where(_c.id == bindparam("of_id"))
    .values(
        last_deployment=_c.last_deployment + 1,
        deploy_day=_day,
        deployed_today=case((_c.deploy_day == _day, _c.deployed_today + _counts), else_=_counts),
    )
    .returning(_c.last_deployment, _c.deployed_today)
)


@dataclass(frozen=True)
class Numbered:
    """`today`: how many count against the quota of this day, in UTC, this one included where it does."""

    number: int
    today: int


async def next_deployment(tx: Tx, organization_id: str, *, counts: bool) -> Numbered:
    """`counts`: whether it is one that the quota is about."""
    values = {"of_id": organization_id, "of_day": day_of(tx.now), "of_counts": int(counts)}
    row = await _count.first(tx.conn, values)
    assert row is not None, "a container's organisation lives as long as the container"
    return Numbered(row[0], row[1])


def day_of(now: float) -> int:
    """Days since 1970."""
    return int(now // DAY_SECONDS)
