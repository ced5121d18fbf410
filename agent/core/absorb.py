"""What the engine shows, taken into the record: starts nobody recorded, ends, and disappearances.

An end is known by the engine container and the moment it finished, compared for equality only: the engine's clock is never
set against ours. So an end is counted once however often it is seen, and is counted even when its start was never recorded.
"""

from typing import Literal

from msgspec.structs import replace

from agent.core import restart
from agent.core.history import FRESH, History, crashed, ended_for_good, interrupted
from agent.core.observe import Observed
from shared.spec.container import RestartPolicy
from shared.spec.instance import Assignment, Phase
from shared.spec.reason import (
    COMPLETED,
    ENGINE_ERROR,
    EXITED,
    OUT_OF_MEMORY,
    REMOVED_OUTSIDE,
    UNHEALTHY,
    Reason,
)


def unchanged(observed: Observed, history: History) -> bool:
    """A running instance of which the record says just that: the common case, and nothing to do."""
    return (
        history.running
        and observed.state == "running"
        and history.started_at == observed.started_at
        and history.condemned is None
        and not history.unwatched
        and history.engine_id == observed.engine_id
        and history.end is None
    )


def absorb(assignment: Assignment, observed: Observed | None, history: History, now: float) -> History:
    if history.end is Phase.REMOVED:
        return history
    if observed is None:
        return _vanished(assignment, history, now)
    match observed.state:
        case "running":
            return _runs(observed, history)
        case "exited" | "dead":
            return _ended(assignment, observed, history, now)
        case "created":
            # Should the record believe another one running, an agent made this and died before it could say so.
            return _made(observed, _vanished(assignment, history, now) if history.running else history)


def _runs(observed: Observed, history: History) -> History:
    """Adopted when the record does not know it; a start time other than the recorded one is a restart nobody told us of."""
    if history.running and history.started_at not in (None, observed.started_at):
        history = interrupted(history)
    fresh = not history.running
    return replace(
        history,
        engine_id=observed.engine_id,
        stage=Phase.RUNNING,
        image_ready=True,
        running=True,
        ever_started=True,
        unwatched="",
        started_at=observed.started_at,
        healthy_at=None if fresh else history.healthy_at,
        next_at=None if fresh else history.next_at,
        reason=None if fresh and history.end is None else history.reason,
    )


def _made(observed: Observed, history: History) -> History:
    return replace(history, engine_id=observed.engine_id, image_ready=True)


def _ended(assignment: Assignment, observed: Observed, history: History, now: float) -> History:
    known = (observed.engine_id, observed.finished_at) == (history.exit_id, history.finished_at)
    if known and not history.running:
        return replace(history, engine_id=observed.engine_id) if history.engine_id != observed.engine_id else history
    noted = replace(
        history,
        engine_id=observed.engine_id,
        exit_id=observed.engine_id,
        finished_at=observed.finished_at,
        exit_code=observed.exit_code,
        image_ready=True,
        ever_started=True,
    )
    if assignment.goal != "run" or history.end is not None:
        return replace(noted, running=False, condemned=None)
    if history.unwatched:
        return _found_ended(_policy(assignment), history.unwatched, observed, noted)
    if history == FRESH:  # the record is lost: nobody knows what it ended of
        return _found_ended(_policy(assignment), "agent", observed, noted)
    return _end_of_attempt(assignment, observed, noted, now)


def _end_of_attempt(assignment: Assignment, observed: Observed, history: History, now: float) -> History:
    if history.condemned is not None:
        detail = f": {history.condemned}" if history.condemned else ""
        cause = Reason(UNHEALTHY, f"was restarted because its health check kept failing{detail}")
        return crashed(assignment.instance_id, history, cause, now)
    match restart.judge(_policy(assignment), observed.exit_code):
        case "again":
            return crashed(assignment.instance_id, history, cause_of(observed), now)
        case "completed":
            return ended_for_good(history, Phase.STOPPED, Reason(COMPLETED, "ended by itself with code 0"))
        case "failed":
            return ended_for_good(history, Phase.FAILED, cause_of(observed))


def _found_ended(
    policy: RestartPolicy, unwatched: Literal["agent", "engine"], observed: Observed, history: History
) -> History:
    """It ended while nobody looked. An engine or a machine that goes down ends everything, with whatever code, so only a
    policy of `never` stays with the end; while merely the agent was away, the code means what it says."""
    verdict = restart.judge(policy, observed.exit_code)
    if verdict == "again" or (unwatched == "engine" and policy != "never"):
        return interrupted(history)
    if verdict == "completed":
        return ended_for_good(history, Phase.STOPPED, Reason(COMPLETED, "ended by itself with code 0"))
    return ended_for_good(history, Phase.FAILED, cause_of(observed))


def _vanished(assignment: Assignment, history: History, now: float) -> History:
    gone = replace(history, engine_id="", image_ready=False) if history.engine_id else history
    if not history.running:
        return gone
    if assignment.goal != "run" or history.end is not None:
        return replace(gone, running=False, condemned=None)
    cause = Reason(REMOVED_OUTSIDE, "its engine container was removed by other means than Argosy")
    if _policy(assignment) == "never":
        return ended_for_good(gone, Phase.FAILED, cause)
    return crashed(assignment.instance_id, gone, cause, now)


def cause_of(observed: Observed) -> Reason:
    if observed.state == "dead":
        detail = f": {observed.error}" if observed.error else ""
        return Reason(ENGINE_ERROR, f"the engine lost its engine container{detail}")
    sentence = restart.exit_sentence(observed.exit_code, out_of_memory=observed.out_of_memory)
    if observed.error:
        sentence = f"{sentence}: {observed.error}"
    return Reason(OUT_OF_MEMORY if observed.out_of_memory else EXITED, sentence)


def _policy(assignment: Assignment) -> RestartPolicy:
    return assignment.spec.restart_policy if assignment.spec is not None else "never"
