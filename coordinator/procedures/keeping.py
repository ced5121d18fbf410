"""Writing the variables of a place, whoever asks: a limit on their number and size, versions, secret values concealed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, Conflict
from coordinator.procedures.context import Context
from coordinator.store import organizations, variables
from coordinator.store.database import Tx
from coordinator.store.variables import VariableRecord
from coordinator.store.vault import Compartment, variable_context
from shared.kit.ids import new_id
from shared.spec.container import MASK, MAX_ENV_BYTES, EnvVar

MAX_VARIABLES = 200


@dataclass(frozen=True)
class Place:
    """Where variables are kept: of the ids but the organisation's, those that lead there."""

    organization_id: str
    project_id: str | None = None
    environment_id: str | None = None

    @property
    def id(self) -> str:
        return self.environment_id or self.project_id or self.organization_id


def place_of(record: VariableRecord) -> Place:
    return Place(record.organization_id, record.project_id, record.environment_id)


async def add(tx: Tx, context: Context, place: Place, var: EnvVar) -> VariableRecord:
    """Raises BadRequest or Conflict."""
    if await variables.count(tx.conn, place.id) >= MAX_VARIABLES:
        raise BadRequest(f"key: there are {MAX_VARIABLES} variables here already")
    if var.secret and var.value == MASK:
        raise BadRequest(f"value: {MASK!r} stands for a stored secret, and there is none")
    variable_id = new_id("sec")
    record = VariableRecord(
        id=variable_id,
        organization_id=place.organization_id,
        project_id=place.project_id,
        environment_id=place.environment_id,
        place=place.id,
        key=var.key,
        value=await _at_rest(tx.conn, context, place, variable_id, var),
        secret=var.secret,
        created_by=context.user.user_id,
        created_at=tx.now,
        updated_at=tx.now,
    )
    try:
        await variables.insert(tx, record)
    except IntegrityError as error:
        raise Conflict(f"key: there is a variable {var.key!r} here already") from error
    return record


async def rewrite(
    tx: Tx, context: Context, record: VariableRecord, value: str | None, *, secret: bool
) -> VariableRecord:
    """Its next version; the record as it is when nothing changes. `value` None, or the mask of a secret one: the stored value.
    Raises BadRequest."""
    if value is None or (record.secret and value == MASK):
        value = None
        if secret == record.secret:
            return record
        if record.secret:
            raise BadRequest("value: is required when a secret becomes a plain variable: nobody is shown it by the way")
    plain = record.value if value is None else value
    if not secret and not record.secret and plain == record.value:
        return record
    place = place_of(record)
    var = EnvVar(key=record.key, value=plain, secret=secret)
    at_rest = await _at_rest(tx.conn, context, place, record.id, var)
    if secret and not record.secret:  # what is a secret from now on must not stand in the versions before
        await variables.forget_history(tx, record.id)
    return await variables.write(tx, record, context.user.user_id, at_rest, secret=secret)


async def replace(tx: Tx, context: Context, place: Place, wanted: Sequence[EnvVar]) -> list[str]:
    """Let these be all there are at `place`; the keys that changed. Raises BadRequest."""
    keys = [var.key for var in wanted]
    for key in keys:
        if keys.count(key) > 1:
            raise BadRequest(f"variables: {key!r} is given twice")
    known = {record.key: record for record in await variables.of_places(tx.conn, [place.id])}
    gone = sorted(known.keys() - set(keys))
    for key in gone:
        await variables.remove(tx, known[key].id)
    changed = list(gone)
    for var in wanted:
        record = known.get(var.key)
        if record is None:
            await add(tx, context, place, var)
        elif await rewrite(tx, context, record, var.value, secret=var.secret) is record:
            continue
        changed.append(var.key)
    return sorted(changed)


async def compartment_of(conn: AsyncConnection, context: Context, organization_id: str) -> Compartment:
    organization = await organizations.get(conn, organization_id)
    assert organization is not None, "the scope was found in this organisation"
    return context.services.vault.unlock(organization.sealed_key, organization_id)


async def _at_rest(conn: AsyncConnection, context: Context, place: Place, variable_id: str, var: EnvVar) -> str:
    if len(var.value.encode()) > MAX_ENV_BYTES:
        raise BadRequest(f"value: {var.key} may not exceed {MAX_ENV_BYTES} bytes")
    if not var.secret:
        return var.value
    compartment = await compartment_of(conn, context, place.organization_id)
    return compartment.conceal(var.value, variable_context(variable_id))
