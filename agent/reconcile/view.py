"""What this node's engine runs, as last seen, when several look at once.

A list takes time, and while it is on its way the executor creates and removes. So every look says when it began, and what was put
in since then is not overwritten by it. Ticks are counted, not timed.
"""

from collections.abc import Iterable, Mapping

from agent.core.observe import Observed

_PREFERENCE = {"running": 3, "exited": 2, "created": 1, "dead": 0}


class View:
    def __init__(self) -> None:
        self._observed: dict[str, Observed] = {}
        self._written: dict[str, int] = {}
        self._looked: dict[str, int] = {}
        self._tick = 0

    @property
    def observed(self) -> Mapping[str, Observed]:
        return self._observed

    def tick(self) -> int:
        """A moment: later ones are greater."""
        self._tick += 1
        return self._tick

    def put(self, instance_id: str, seen: Observed | None, looked: int) -> None:
        """What an action brought about, of which this agent is the author. `looked`: when the look at it began."""
        self._store(instance_id, seen)
        self._written[instance_id] = self.tick()
        self._looked[instance_id] = looked

    def offer(self, instance_id: str, seen: Observed | None, looked: int) -> None:
        """What a look showed that began at `looked`: taken unless something newer is known. A listing that shows what is known
        already takes nothing away from it."""
        if self._written.get(instance_id, 0) < looked:
            if not _confirms(seen, self._observed.get(instance_id)):
                self._store(instance_id, seen)
            self._looked[instance_id] = max(looked, self._looked.get(instance_id, 0))

    def offer_all(self, seen: Iterable[Observed], looked: int) -> None:
        """A complete list: what is not in it is gone. Should the engine hold two of one instance, the more alive counts."""
        found: dict[str, Observed] = {}
        for item in seen:
            other = found.get(item.instance_id)
            if other is None or _rank(item) > _rank(other):
                found[item.instance_id] = item
        for instance_id in {*self._observed, *found}:
            self.offer(instance_id, found.get(instance_id), looked)
        for ticks in (self._written, self._looked):
            for instance_id in [name for name in ticks if name not in self._observed and ticks[name] < looked]:
                del ticks[instance_id]

    def looked_since(self, instance_id: str, tick: int) -> bool:
        """Whether what is known comes from a look that began after `tick`."""
        return self._looked.get(instance_id, 0) > tick

    def _store(self, instance_id: str, seen: Observed | None) -> None:
        if seen is None:
            self._observed.pop(instance_id, None)
        else:
            self._observed[instance_id] = seen


def _confirms(seen: Observed | None, known: Observed | None) -> bool:
    if seen is None or known is None or not seen.vague:
        return False
    return (seen.engine_id, seen.state) == (known.engine_id, known.state)


def _rank(seen: Observed) -> tuple[int, float, str]:
    return _PREFERENCE[seen.state], seen.started_at or 0.0, seen.engine_id
