"""When an instance that ended is started again, and how that is said to people.

Full jitter as everywhere else (`shared.kit.backoff`), but drawn from the instance's id and attempt instead of from chance: the
instances of a node still spread over the whole window, and the plan stays a function of its inputs.
"""

from typing import Literal
from zlib import crc32

from shared.spec.container import RestartPolicy

BASE = 1.0
CEILING = 60.0
HEALTHY_AFTER = 60.0
"""Seconds of health after which earlier exits are forgiven."""

Verdict = Literal["again", "completed", "failed"]

_SIGNALS = {
    1: "hung up",
    2: "interrupted",
    3: "quit",
    4: "illegal instruction",
    6: "aborted",
    7: "bus error",
    8: "arithmetic error",
    9: "killed",
    11: "segmentation fault",
    13: "broken pipe",
    15: "terminated",
}


def judge(policy: RestartPolicy, exit_code: int | None) -> Verdict:
    """An unknown exit code is not a success."""
    if policy == "always":
        return "again"
    if exit_code == 0:
        return "completed"
    return "again" if policy == "on-failure" else "failed"


def delay(instance_id: str, attempt: int, count: int) -> float:
    """Seconds to wait after the `count`-th failure in a row (from 1)."""
    limit = min(BASE * 2.0 ** min(count - 1, 32), CEILING)
    return limit * crc32(f"{instance_id}/{attempt}/{count}".encode()) / 2**32


def waiting(next_at: float | None, now: float) -> bool:
    """Whether `next_at` is still to come. One that lies beyond any delay was written under another clock: the machine's time
    was set back, and the wait is over rather than hours long."""
    return next_at is not None and now < next_at <= now + CEILING


def exit_sentence(exit_code: int | None, *, out_of_memory: bool) -> str:
    if out_of_memory:
        return "ran out of memory and was killed"
    if exit_code is None:
        return "ended"
    if exit_code == 126:
        return "exited with code 126 (its command cannot be executed)"
    if exit_code == 127:
        return "exited with code 127 (its command was not found)"
    meaning = _SIGNALS.get(exit_code - 128)
    return f"exited with code {exit_code} ({meaning})" if meaning else f"exited with code {exit_code}"


def times(count: int) -> str:
    return "" if count <= 1 else " twice" if count == 2 else f" {count} times"


def in_words(seconds: float) -> str:
    """How long to wait: precise when short, whole seconds when not."""
    return "at once" if seconds < 0.05 else f"in {seconds:.1f} s" if seconds < 1 else f"in {seconds:.0f} s"
