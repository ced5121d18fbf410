"""Callers by what they showed, so that looking one up costs no read of the database while nothing about them changed.

A change of somebody's roles, grants, tokens or sessions is told by the change feed; it is looked at before each use, so it holds
for the next request. What is kept is also forgotten after a few seconds: that is how soon a change of another replica counts.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from coordinator.procedures.context import Caller
from coordinator.store.changes import Changes
from shared.kit.clock import Clock

KEPT_SECONDS = 10.0
MAX_CALLERS = 10_000

Key = tuple[str, str]
"""The kind of credential and its hash: a secret of one kind is none of another."""


@dataclass(frozen=True)
class Found:
    """`until`: wall time from which the credential opens nothing."""

    caller: Caller
    until: float | None


@dataclass(frozen=True)
class _Kept:
    found: Found
    fresh_until: float


class Callers:
    def __init__(self, changes: Changes, clock: Clock) -> None:
        self._access = changes.subscribe("access")
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._of: dict[str, set[Key]] = {}
        self._forgotten = 0

    async def find(self, key: Key, load: Callable[[], Awaitable[Found]]) -> Caller:
        """The caller, from `load` when it is not known. Raises what `load` does."""
        self._forget_changed()
        kept = self._kept.get(key)
        if kept is not None and self._holds(kept):
            self._kept.move_to_end(key)
            return kept.found.caller
        self._drop(key)
        before = self._forgotten
        found = await load()
        self._forget_changed()
        if self._forgotten == before:  # else what was read may be of before the change
            self._keep(key, found)
        return found.caller

    def _holds(self, kept: _Kept) -> bool:
        until = kept.found.until
        return self._clock.monotonic() < kept.fresh_until and (until is None or self._clock.wall() < until)

    def _keep(self, key: Key, found: Found) -> None:
        self._kept[key] = _Kept(found, self._clock.monotonic() + KEPT_SECONDS)
        self._of.setdefault(found.caller.user_id, set()).add(key)
        if len(self._kept) > MAX_CALLERS:
            self._drop(next(iter(self._kept)))

    def _forget_changed(self) -> None:
        for _, user_id in self._access.drain():
            self._forgotten += 1
            for key in tuple(self._of.get(user_id, ())):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        keys = self._of[kept.found.caller.user_id]
        keys.discard(key)
        if not keys:
            del self._of[kept.found.caller.user_id]
