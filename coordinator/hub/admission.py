"""How many may come in at once, and how often the same one.

After a coordinator's restart a whole fleet connects in the same second; each handshake costs signatures and a transaction. A
bounded number is worked on, the others are told when to come back, each at another moment.
"""

from collections import deque
from collections.abc import Callable
from random import uniform

HANDSHAKES = 256
REGISTRATIONS, WITHIN_SECONDS = 3, 8.0
_RETRY = (1.0, 5.0)
_SWEEP_ABOVE = 1000


class Admission:
    """`draw(a, b)`: a random number between the two."""

    def __init__(self, draw: Callable[[float, float], float] = uniform) -> None:
        self.draw = draw
        self._registered: dict[str, deque[float]] = {}
        self.shaking = 0

    def crowded(self) -> float | None:
        """Seconds after which to come back, when no further handshake is begun now."""
        return self.draw(*_RETRY) if self.shaking >= HANDSHAKES else None

    def register(self, node_id: str, now: float) -> float | None:
        """Count a session of a node that has proved itself, or say after how many seconds it may try again."""
        times = self._registered.setdefault(node_id, deque())
        while times and times[0] <= now - WITHIN_SECONDS:
            times.popleft()
        if len(times) >= REGISTRATIONS:
            return times[0] + WITHIN_SECONDS - now + self.draw(0.0, 1.0)
        times.append(now)
        if len(self._registered) > _SWEEP_ABOVE:
            self._sweep(now)
        return None

    def _sweep(self, now: float) -> None:
        for node_id in [key for key, times in self._registered.items() if times[-1] <= now - WITHIN_SECONDS]:
            del self._registered[node_id]
