"""Answers that are still true: reads that dashboards and scripts repeat are computed once per change, not once per request.

An answer says what it is about, as entries of the change feed; the first of them to change makes it old, before whoever made the
change is told that it is done. Nobody reads an older state than they have written. Time alone changes answers too ("next start in
4 s"), so none lives longer than a second whatever the feed says. What a caller may see is decided anew each time: an answer is kept
with its scope, never with a caller. Who asks while it is being read waits for it, unless it has become old meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from coordinator.store.changes import Changes, Entry, Kind
from shared.kit.clock import Clock

if TYPE_CHECKING:  # whose `Services` hold what is remembered
    from coordinator.procedures.context import Scope

LIFETIME_SECONDS = 1.0
CAPACITY_BYTES = 32 * 2**20
_OVERHEAD_BYTES = 1024
"""What an answer costs besides its text: scope, key, index."""

Concern = tuple[Kind, str | None]
"""A thing whose change makes an answer old; None: any thing of the kind."""


@dataclass(eq=False)
class Answer:
    """`body`: the encoded output; empty while it is being read, and for ever when that failed. `ended`: reading has. `old`: it
    changed since reading began."""

    concerns: tuple[Concern, ...]
    began: float
    scope: Scope | None = None
    body: msgspec.Raw = field(default_factory=msgspec.Raw)
    next_cursor: str | None = None
    old: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def size(self) -> int:
        return len(self.body) + _OVERHEAD_BYTES


class Remembered:
    """Least recently asked answers go first when the whole has `capacity` bytes."""

    def __init__(self, changes: Changes, clock: Clock, capacity: int = CAPACITY_BYTES) -> None:
        changes.listen(self._changed)
        self._clock = clock
        self._capacity = capacity
        self._size = 0
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._about: dict[Concern, set[Answer]] = {}
        self._keys: dict[Answer, Hashable] = {}
        self._reading: dict[Hashable, Answer] = {}

    def get(self, key: Hashable) -> Answer | None:
        answer = self._kept.get(key)
        if answer is None:
            return None
        if self._clock.monotonic() - answer.began >= LIFETIME_SECONDS:
            self._forget(answer)
            return None
        self._kept.move_to_end(key)
        return answer

    def under_way(self, key: Hashable) -> Answer | None:
        """One that is being read and as good as one begun now."""
        answer = self._reading.get(key)
        return None if answer is None or answer.old else answer

    def begin(self, key: Hashable, concerns: tuple[Concern, ...]) -> Answer:
        """Call before reading: what changes from now on is noticed. Every answer begun is kept or dropped."""
        answer = Answer(concerns, self._clock.monotonic())
        self._reading[key] = answer
        for concern in concerns:
            self._about.setdefault(concern, set()).add(answer)
        return answer

    def keep(self, key: Hashable, answer: Answer) -> None:
        """Once it has its scope and its body."""
        self._end(key, answer)
        if answer.old:  # it is true for whoever asked before the change, and for nobody after
            self._leave_all(answer)
            return
        if key in self._kept:
            self._forget(self._kept[key])
        self._kept[key] = answer
        self._keys[answer] = key
        self._size += answer.size
        while self._size > self._capacity:
            self._forget(next(iter(self._kept.values())))

    def drop(self, key: Hashable, answer: Answer) -> None:
        """Nothing came of it."""
        self._end(key, answer)
        self._leave_all(answer)

    def _changed(self, entries: Iterable[Entry]) -> None:
        for kind, key in entries:
            for concern in ((kind, key), (kind, None)):
                for answer in list(self._about.get(concern, ())):
                    answer.old = True
                    if answer in self._keys:
                        self._forget(answer)

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self, answer: Answer) -> None:
        del self._kept[self._keys.pop(answer)]
        self._size -= answer.size
        self._leave_all(answer)

    def _end(self, key: Hashable, answer: Answer) -> None:
        if self._reading.get(key) is answer:
            del self._reading[key]
        answer.ended.set()

    def _leave_all(self, answer: Answer) -> None:
        for concern in answer.concerns:
            self._leave(concern, answer)

    def _leave(self, concern: Concern, answer: Answer) -> None:
        about = self._about.get(concern)
        if about is not None:
            about.discard(answer)
            if not about:
                del self._about[concern]
