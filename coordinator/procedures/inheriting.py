"""What a container inherits: the variables of its environment, its project and its organisation, the nearer before the farther; its
own come before all of them.

They are frozen into each release that is made of a declaration, as its template is: a change of a variable changes nothing that
runs, it shows as a pending change, and the next deploy brings it into force. A restart repeats its release, and a rollback returns
to one, with the variables that release was made with.
"""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest
from coordinator.procedures import declaring
from coordinator.procedures.context import Context
from coordinator.store import organizations, registries, variables
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.releases import ReleaseRecord
from coordinator.store.variables import VariableRecord
from coordinator.store.vault import Compartment, env_context, variable_context
from shared.spec.container import Template
from shared.spec.image import canonical, registry_of
from shared.spec.release import Inherited


async def current(conn: AsyncConnection, container: ContainerRecord) -> list[VariableRecord]:
    """What counts for the container now, by key."""
    ranked = (container.organization_id, container.project_id, container.environment_id)
    found = await variables.of_places(conn, ranked)
    nearest = {each.key: each for each in sorted(found, key=lambda each: ranked.index(each.place))}
    return [nearest[key] for key in sorted(nearest)]


async def freeze(tx: Tx, context: Context, container: ContainerRecord, template: Template) -> list[Inherited]:
    """What a release of `template`, which is in its resting form, inherits. Raises BadRequest when a node could not be told all."""
    found = _effective(await current(tx.conn, container), template)
    if not found:
        return []
    organization = await organizations.get(tx.conn, container.organization_id)
    assert organization is not None, "its container is there"
    compartment = context.services.vault.unlock(organization.sealed_key, organization.id)
    plain = [_opened(each, compartment) for each in found]
    declaring.check_whole(template, plain)
    return [_for_container(each, compartment, container.id) for each in plain]


def differs(now: Iterable[VariableRecord], declared: Template, release: ReleaseRecord) -> bool:
    """Whether a deploy would bring other variables into force. What the declaration sets itself is a change of its own."""
    own = {var.key for var in declared.env}
    frozen = {each.identity for each in release.variables if each.key not in own}
    return frozen != {_frozen(each, each.value).identity for each in _effective(now, declared)}


async def check_registry(conn: AsyncConnection, organization_id: str, template: Template) -> None:
    """Raises BadRequest unless the registry that the template names, if any, is one to pull its image from."""
    if template.registry_id is None:
        return
    record = await registries.get(conn, template.registry_id)
    if record is None or record.organization_id != organization_id:
        raise BadRequest("registryId: no such registry in this organisation")
    if canonical(record.server) != canonical(registry_of(template.image)):
        raise BadRequest(f"registryId: is of {record.server}, and the image is from {registry_of(template.image)}")


def _effective(found: Iterable[VariableRecord], template: Template) -> list[VariableRecord]:
    own = {var.key for var in template.env}
    return [each for each in found if each.key not in own]


def _opened(record: VariableRecord, compartment: Compartment) -> Inherited:
    value = compartment.reveal(record.value, variable_context(record.id)) if record.secret else record.value
    return _frozen(record, value)


def _for_container(plain: Inherited, compartment: Compartment, container_id: str) -> Inherited:
    if not plain.secret:
        return plain
    value = compartment.conceal(plain.value, env_context(container_id, plain.key))
    return Inherited(key=plain.key, value=value, secret=True, origin=plain.origin)


def _frozen(record: VariableRecord, value: str) -> Inherited:
    return Inherited(key=record.key, value=value, secret=record.secret, origin=f"{record.id}@{record.version}")
