"""Approvals: deployments of a restricted environment that wait for somebody's word.

A deployment that waits touches nothing that runs. Approving it starts it from the state its container is in by then, with the
release and the number of replicas that were asked for: what a reviewer saw is what is rolled out. Owners and admins may decide on
anything, also on what they asked for themselves with a narrower token; everybody else on other people's requests only.
"""

from typing import Literal

from coordinator.errors import BadRequest, Forbidden, NotFound, PreconditionFailed
from coordinator.procedures import paging, releasing, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.container import require
from coordinator.procedures.container_actions import DeploymentId
from coordinator.procedures.container_views import ApprovalView, DeploymentView, approval_view, deployment_view
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Note, Page
from coordinator.procedures.table import procedure
from coordinator.store import approvals, deployments, projects, releases
from coordinator.store.approvals import ApprovalRecord, ApprovalStatus
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.deployments import DeploymentRecord
from shared.spec.container import Part


class ListApprovals(Page, frozen=True, kw_only=True):
    environment_id: Id
    status: ApprovalStatus | None = None


class Decision(Part, frozen=True):
    deployment_id: Id
    comment: Note = ""


@procedure(
    "environment.requestApproval",
    "POST",
    "developer",
    scopes.deployment,
    rest="/deployments/{deploymentId}/approval",
)
async def request(context: Context, data: DeploymentId) -> ApprovalView:
    """The request that a waiting deployment made when it was asked for. Asking again changes nothing."""
    async with context.services.store.read() as conn:
        record = await deployments.get(conn, data.deployment_id)
        asked = await approvals.of_deployment(conn, data.deployment_id)
    if record is None:
        raise NotFound("deployment not found")
    if asked is None or record.status != "pending":
        raise PreconditionFailed(f"the deployment waits for no approval: it is {record.status}")
    return approval_view(asked)


@procedure(
    "environment.approvals", "GET", "developer", scopes.environment, rest="/environments/{environmentId}/approvals"
)
async def list_approvals(context: Context, data: ListApprovals) -> list[ApprovalView]:
    """What was asked for in this environment and what became of it, newest first."""
    async with context.services.store.read() as conn:
        found = await approvals.of_environment(
            conn, data.environment_id, status=data.status, before=data.cursor or "", limit=paging.fetch(data)
        )
    return [approval_view(record) for record in paging.cut(context, data, found)]


@procedure(
    "environment.approveDeployment",
    "POST",
    "reviewer",
    scopes.deployment,
    rest="/deployments/{deploymentId}/approve",
    effect="declares",
)
async def approve(context: Context, data: Decision) -> DeploymentView:
    """Let a deployment that waits begin. What is under way in the container is superseded."""

    async def unit(tx: Tx) -> DeploymentView:
        record = await _decide(tx, context, data, "approved")
        container = await _still_there(tx, record)
        begun = await releasing.release_held(tx, container, record)
        await note(
            tx, context, "environment.approveDeployment", record.id, container.organization_id, comment=data.comment
        )
        return await deployment_view(tx.conn, begun)

    return await context.services.store.write(unit)


@procedure(
    "environment.rejectDeployment",
    "POST",
    "reviewer",
    scopes.deployment,
    rest="/deployments/{deploymentId}/reject",
)
async def reject(context: Context, data: Decision) -> DeploymentView:
    """Refuse a deployment that waits: it ends as `cancelled`, and nothing that runs has changed."""

    async def unit(tx: Tx) -> DeploymentView:
        record = await _decide(tx, context, data, "rejected")
        why = f"rejected by {context.user.email or context.user.user_id}"
        await releasing.drop_held(tx, record, f"{why}: {data.comment}" if data.comment else why)
        owner = context.record.organization_id
        await note(tx, context, "environment.rejectDeployment", record.id, owner, comment=data.comment)
        return await deployment_view(tx.conn, await deployments.get(tx.conn, record.id) or record)

    return await context.services.store.write(unit)


async def _decide(
    tx: Tx, context: Context, data: Decision, outcome: Literal["approved", "rejected"]
) -> DeploymentRecord:
    """Raises unless the deployment still waits and this caller may say so. Of two who decide at once, one is late."""
    record = await deployments.get(tx.conn, data.deployment_id)
    asked = await approvals.of_deployment(tx.conn, data.deployment_id)
    if record is None:
        raise NotFound("deployment not found")
    if asked is None or record.status != "pending":
        raise PreconditionFailed(f"the deployment waits for no approval: it is {record.status}")
    _require_other(context, asked)
    decision = {"decided_by": context.user.user_id, "comment": data.comment}
    if not await approvals.settle(tx, record.id, outcome, **decision):
        raise PreconditionFailed("somebody else has decided this very moment")
    return record


def _require_other(context: Context, asked: ApprovalRecord) -> None:
    if asked.requested_by == context.user.user_id and context.role not in ("owner", "admin"):
        raise Forbidden("the request is your own: another reviewer, an admin or an owner decides on it")


async def _still_there(tx: Tx, record: DeploymentRecord) -> ContainerRecord:
    """Raises when what was asked for can no longer be done."""
    container = await require(tx.conn, record.container_id)
    environment = await projects.get_environment(tx.conn, container.environment_id)
    if environment is None or environment.removing:
        raise PreconditionFailed("the environment is being removed")
    if await releases.get(tx.conn, record.release_id) is None:
        raise BadRequest("the release that was asked for is gone")
    return container
