"""Exponential backoff with full jitter, as a value: the caller sleeps, this only counts.

Full jitter (a uniform draw from zero up to the ceiling) spreads a fleet that lost its coordinator at one instant over the
whole window; anything narrower reconnects in waves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import random


@dataclass
class Backoff:
    """Delays in seconds, each drawn from `[0, min(base * 2**failures, ceiling)]`.

    `settled` resets the count only when the thing retried held for `healthy_after` seconds: a connection that is accepted
    and dropped at once must not turn into a busy loop.
    """

    base: float = 1.0
    ceiling: float = 60.0
    healthy_after: float = 60.0
    draw: Callable[[], float] = random
    failures: int = field(default=0, init=False)

    def next_delay(self) -> float:
        limit = min(self.base * 2.0 ** min(self.failures, 32), self.ceiling)
        self.failures += 1
        return limit * self.draw()

    def settled(self, held_for: float) -> None:
        if held_for >= self.healthy_after:
            self.failures = 0
