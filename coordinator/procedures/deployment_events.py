"""A deployment as it happens: its events one by one, every change of its status, and its end.

Events have numbers that never change, so a reader that comes back with the number of the last one it got misses none and gets none
twice. A status is no event but what is true now: whoever comes back is told it again.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from msgspec import Meta

from coordinator.errors import BadRequest
from coordinator.procedures import scopes
from coordinator.procedures.context import Context, Services
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.table import Stream, procedure
from coordinator.store import deployments
from coordinator.store.deployments import DeploymentRecord
from shared.kit.clock import iso
from shared.spec.container import Part

LOOK_SECONDS = 1.0
"""A reader notices after so long that the coordinator is about to stop; what happens to its deployment it is told at once."""
ENDED = frozenset({"succeeded", "failed", "rolled_back", "cancelled"})

Seq = Annotated[str, Meta(max_length=9, pattern=r"^[0-9]*$(?!\n)")]


class FollowDeployment(Part, frozen=True):
    """`cursor`, or `lastEventId`: the `cursor` of the last step a reader got; it goes on behind it."""

    deployment_id: Id
    cursor: Seq = ""
    last_event_id: Seq = ""


class DeploymentStep(View, frozen=True):
    """`kind`: an event, with its `seq` and its message; what the status is now; or the end, with the last status. `cursor`: where a
    reader goes on that comes back; also the step's id."""

    kind: Literal["event", "status", "end"]
    seq: int
    at: str
    message: str
    status: str
    error: str
    cursor: str


@procedure("container.deploymentEvents", "GET", "viewer", scopes.deployment, rest="/deployments/{deploymentId}/events")
async def follow(context: Context, data: FollowDeployment) -> Stream[DeploymentStep]:
    """What happens in a deployment, until it has ended: its events, and its status whenever that changes."""
    given = data.cursor or data.last_event_id or context.last_event_id
    if not (given.isascii() and given.isdecimal() and len(given) < 10) and given:
        raise BadRequest("cursor: is none of this stream")
    return Stream(_steps(context.services, data.deployment_id, int(given or 0)))


async def _steps(services: Services, deployment_id: str, seq: int) -> AsyncIterator[DeploymentStep]:
    """STRICTLY subscribed before the first look: what changes after it wakes this reader."""
    changes = services.store.changes.subscribe("deployment", "container")
    status = ""
    try:
        while (record := await _read(services, deployment_id)) is not None:
            for event in record.events:
                if event.seq > seq:
                    seq = event.seq
                    yield _step("event", record, seq, event.at, event.message)
            if record.status != status:
                status = record.status
                yield _step("status", record, seq, services.clock.wall())
            if status in ENDED and not record.active:
                yield _step("end", record, seq, record.finished_at or services.clock.wall())
                return
            concerned = False
            while not concerned:
                if services.broker.closed:
                    return
                changed = await changes.take(LOOK_SECONDS)
                concerned = any(key == record.container_id for _, key in changed)
    finally:
        changes.close()


async def _read(services: Services, deployment_id: str) -> DeploymentRecord | None:
    async with services.store.read() as conn:
        return await deployments.get(conn, deployment_id)


def _step(
    kind: Literal["event", "status", "end"], record: DeploymentRecord, seq: int, at: float, message: str = ""
) -> DeploymentStep:
    return DeploymentStep(
        kind=kind,
        seq=seq,
        at=iso(at),
        message=message,
        status=record.status,
        error=record.error,
        cursor=str(seq),
    )
