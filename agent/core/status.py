"""What is reported of an instance, derived in one place from what is known: never stored, never ahead of the facts.

`running` needs an engine container seen running, `healthy` a probe that passed (or no health check at all). Sentences are made
where the thing they tell of happens, and only carried here, so that the same state always makes the same report: equal reports
are not sent again.
"""

from dataclasses import dataclass

from agent.core.health import HealthState
from agent.core.history import History
from agent.core.observe import Observed
from shared.spec.instance import Assignment, Goal, Health, InstanceReport, Phase
from shared.spec.reason import STARTING, STOPPED, UNHEALTHY, Reason


@dataclass(frozen=True)
class Senses:
    """What is known of this moment only: the probes' state (None: not probed, or not yet), bytes pulled of bytes known."""

    health: HealthState | None = None
    progress: tuple[int, int] | None = None


NOTHING = Senses()


def derive(
    assignment: Assignment, observed: Observed | None, history: History, senses: Senses = NOTHING
) -> InstanceReport:
    running = observed is not None and observed.state == "running" and history.running
    phase = history.end if history.end is not None else Phase.RUNNING if running else _before_running(history)
    health = _health(assignment, history, senses) if phase is Phase.RUNNING else _idle_health(history, phase)
    return InstanceReport(
        instance_id=assignment.instance_id,
        attempt=history.attempt,
        phase=phase,
        health=health,
        reason=_reason(assignment, history, phase, health, senses),
        ports=list(observed.ports) if observed is not None and running else [],
        started_at=observed.started_at if observed is not None else None,
        finished_at=None if running else history.finished_at,
        exit_code=None if running else history.exit_code,
        image_digest=observed.image_id if observed is not None else "",
        progress=senses.progress if not running and history.end is None else None,
    )


def _before_running(history: History) -> Phase:
    """A record that says `running` of what is not seen running is about to be corrected; the phase does not go back for it."""
    return Phase.RUNNING if history.running else history.stage


def _health(assignment: Assignment, history: History, senses: Senses) -> Health:
    if not history.running:
        return "unknown"
    if history.condemned is not None:
        return "unhealthy"
    if assignment.spec is None or assignment.spec.health_check is None:
        return "healthy"
    state = senses.health
    if history.healthy_at is not None and (state is None or (state.health == "starting" and state.failures == 0)):
        return "healthy"  # the agent restarted: it was healthy in this attempt, and nothing has said otherwise yet
    return "starting" if state is None else state.health


def _idle_health(history: History, phase: Phase) -> Health:
    """An attempt that waits after a failed one is a failing instance, however hopeful the next try."""
    return "unhealthy" if phase is Phase.STARTING and history.attempt > 1 and history.reason is not None else "unknown"


def _reason(assignment: Assignment, history: History, phase: Phase, health: Health, senses: Senses) -> Reason | None:
    match phase:
        case Phase.REMOVED:
            return None
        case Phase.RUNNING:
            return _running_reason(assignment.goal, history, health, senses)
        case _:
            return history.reason or _progress_reason(assignment, phase)


def _running_reason(goal: Goal, history: History, health: Health, senses: Senses) -> Reason | None:
    if goal != "run":
        return history.reason or Reason(STOPPED, "is being stopped as asked")
    error = history.condemned or (senses.health.last_error if senses.health is not None else "")
    detail = f": {error}" if error else ""
    match health:
        case "healthy":
            return None
        case "unhealthy":
            return Reason(UNHEALTHY, f"its health check fails{detail}")
        case "starting" | "unknown":
            return Reason(STARTING, f"runs; its health check has not passed yet{detail}")


def _progress_reason(assignment: Assignment, phase: Phase) -> Reason | None:
    image = assignment.spec.image if assignment.spec is not None else ""
    match phase:
        case Phase.ASSIGNED:
            return Reason(STARTING, "waits for its turn on the node")
        case Phase.PULLING:
            return Reason(STARTING, f"its image {image} is being pulled")
        case Phase.STARTING:
            return Reason(STARTING, "its engine container is being started")
        case _:
            return None
