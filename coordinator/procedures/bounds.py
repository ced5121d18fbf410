"""Whether the thing a call is about lies where the call's address says.

An address such as `/tenants/{t}/projects/{p}/…` names more than the thing itself. Who may see the thing under its own address may
not find it under another's, or ids could be tried out against each other, and a mistake would change what nobody meant.
"""

from coordinator.procedures.context import Bounds, Scope
from coordinator.store.containers import ContainerRecord
from coordinator.store.projects import EnvironmentRecord, ProjectRecord


def holds(bounds: Bounds, scope: Scope) -> bool:
    project_id, environment_id = _home(scope.record)
    return (
        bounds.organization_id in (None, scope.organization_id)
        and bounds.project_id in (None, project_id)
        and bounds.environment_id in (None, environment_id)
    )


def _home(record: object) -> tuple[str | None, str | None]:
    """Project and environment of a scope's record; what has none lies in none."""
    match record:
        case ProjectRecord():
            return record.id, None
        case EnvironmentRecord():
            return record.project_id, record.id
        case ContainerRecord():
            return record.project_id, record.environment_id
        case _:
            return None, None
