"""What the node remembers of one instance: everything about it that the engine does not know and a restart must not lose.

A record is a value. It changes in two ways only: by what the executor did (the functions below) and by what the engine
shows (`absorb.py`). Both give a new record, so a crash between any two of them leaves one that was true a moment ago, and the next
look at the engine corrects it.
"""

from typing import Literal, assert_never

from msgspec import Struct, field
from msgspec.structs import replace

from agent.core import restart
from agent.core.actions import Action, Create, Pull, Remove, RemoveVolume, Start, Stop
from agent.core.faults import RuntimeFault
from agent.core.health import HealthState
from shared.spec.container import RestartPolicy
from shared.spec.instance import TERMINAL, Goal, Phase
from shared.spec.reason import IMAGE_NOT_FOUND, REMOVED_OUTSIDE, UNHEALTHY, Reason

PERSISTENCE = 5
"""Permanent faults in a row, of an instance that ran before, after which it counts as failed: the world around it may recover.
With the policy `always` it is given all the time that takes."""


class History(Struct, frozen=True, omit_defaults=True):
    """`attempt`: the one in progress, or waited for. `stage`: how far it came; it never goes back within an attempt.
    `engine_id`: the engine container made for it. `running`: started, and no end seen yet. `unwatched`: nobody could see it since
    the agent (or the engine, or the machine) was down, so an end found now is that outage's, not its own. `condemned`: to be
    restarted for its health, and why. `crashes`, `faults`: ends and failed actions in a row. `next_at`: no action before.
    `finished_at`, `exit_code`, `exit_id`: of the last end, and the engine container it belonged to. `end`: the terminal phase.
    `goal`: the one last worked for."""

    attempt: int = 1
    stage: Phase = Phase.ASSIGNED
    engine_id: str = ""
    image_ready: bool = False
    running: bool = False
    ever_started: bool = False
    unwatched: Literal["", "agent", "engine"] = ""
    condemned: str | None = None
    started_at: float | None = None
    healthy_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    exit_id: str = ""
    crashes: int = 0
    faults: int = 0
    next_at: float | None = None
    reason: Reason | None = None
    end: Phase | None = None
    volumes_gone: list[str] = field(default_factory=list)
    goal: Goal = "run"

    @property
    def over(self) -> bool:
        return self.end in TERMINAL


FRESH = History()


def resumed(history: History, *, same_boot: bool) -> History:
    """As the agent starts: it was away, and with another boot of the machine so was everything."""
    return unwatched(history, "agent" if same_boot else "engine")


def unwatched(history: History, by: Literal["agent", "engine"]) -> History:
    if not history.running or history.unwatched == "engine":
        return history
    return replace(history, unwatched=by)


def felt(history: History, state: HealthState | None, policy: RestartPolicy, now: float) -> History:
    """What the probes say of a running instance."""
    if state is None or not history.running:
        return history
    if state.health == "healthy" and history.healthy_at is None:
        return replace(history, healthy_at=now)
    if state.stuck and policy != "never" and history.condemned is None:
        return replace(history, condemned=state.last_error)
    return history


def turned(history: History, goal: Goal) -> History:
    """Another goal is worked for at once: what was waited for belonged to the old one."""
    if history.goal == goal:
        return history
    reason = history.reason if history.over else None
    return replace(history, goal=goal, faults=0, next_at=None, reason=reason)


def pulling(history: History) -> History:
    return replace(history, stage=max(history.stage, Phase.PULLING))


def pulled(history: History) -> History:
    return replace(_succeeded(history), image_ready=True, stage=max(history.stage, Phase.STARTING))


def created(history: History, engine_id: str) -> History:
    return replace(_succeeded(history), engine_id=engine_id)


def started(history: History, engine_id: str) -> History:
    return replace(
        history,
        engine_id=engine_id,
        stage=Phase.RUNNING,
        running=True,
        ever_started=True,
        unwatched="",
        started_at=None,
        healthy_at=None,
        faults=0,
        next_at=None,
        reason=None,
    )


def stopped(history: History) -> History:
    return _succeeded(history)


def removed(history: History) -> History:
    return replace(_succeeded(history), engine_id="", running=False, image_ready=False)


def volume_removed(history: History, volume: str) -> History:
    return replace(_succeeded(history), volumes_gone=[*history.volumes_gone, volume])


def faulted(history: History, action: Action, fault: RuntimeFault, now: float) -> History:
    """`action` failed. What is to be taken away is tried for ever; what is to run may be hopeless."""
    match action:
        case Create() if fault.code == IMAGE_NOT_FOUND and history.image_ready:
            history = replace(history, image_ready=False)  # pruned since it was seen: fetch it again
        case Pull(spec=spec) | Create(spec=spec) | Start(spec=spec):
            if not fault.temporary and _hopeless(history, spec.restart_policy):
                end = Phase.FAILED if history.ever_started else Phase.REJECTED
                return ended_for_good(history, end, Reason(fault.code, fault.message))
        case Stop() | Remove() | RemoveVolume():
            pass
        case _:
            assert_never(action)
    return _retried(action.instance_id, history, fault, now)


def ended_for_good(history: History, end: Phase, reason: Reason | None) -> History:
    return replace(history, end=end, running=False, condemned=None, next_at=None, reason=reason)


def crashed(instance_id: str, history: History, cause: Reason, now: float) -> History:
    """An attempt ended by itself and is followed by the next, later each time; a removal from outside is forgiven once.
    `cause` states what happened; how often, and when it goes on, is added here."""
    held = history.healthy_at is not None and now - history.healthy_at >= restart.HEALTHY_AFTER
    crashes = 1 if held else history.crashes + 1
    at_once = cause.code == REMOVED_OUTSIDE and crashes == 1
    pause = 0.0 if at_once else restart.delay(instance_id, history.attempt, crashes)
    again = "next restart" if cause.code == UNHEALTHY else "next start"
    sentence = f"{cause.message}{restart.times(crashes)}; {again} {restart.in_words(pause)}"
    return replace(
        interrupted(history), crashes=crashes, next_at=now + pause, reason=Reason(cause.code, sentence, now + pause)
    )


def interrupted(history: History) -> History:
    """The next attempt, without blame: the outage ended this one."""
    return replace(
        history,
        attempt=history.attempt + 1,
        stage=Phase.STARTING,
        running=False,
        unwatched="",
        condemned=None,
        started_at=None,
        healthy_at=None,
        faults=0,
        next_at=None,
        reason=None,
    )


def _succeeded(history: History) -> History:
    if history.faults == 0:
        return history
    return replace(history, faults=0, next_at=None, reason=None)


def _hopeless(history: History, policy: RestartPolicy) -> bool:
    if not history.ever_started or policy == "never":
        return True
    return policy != "always" and history.faults >= PERSISTENCE


def _retried(instance_id: str, history: History, fault: RuntimeFault, now: float) -> History:
    faults = history.faults + 1
    pause = restart.delay(instance_id, history.attempt, faults)
    sentence = f"{fault.message}; next try {restart.in_words(pause)}"
    return replace(history, faults=faults, next_at=now + pause, reason=Reason(fault.code, sentence, now + pause))
