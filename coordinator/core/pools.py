"""Nodes in the order in which placement wants them, kept so that one instance costs a few steps instead of a look at each node.

A pool holds the nodes that pass the standing rules of some declaration (and, with a spread label, share its value); containers
with equal rules share it. Within one run a room only fills up, which is what both kinds lean on: a node's place in the spread
order only moves back, so an outdated heap entry is corrected when it surfaces; and a node that refused an ask refuses it for
the rest of the run, so it is set aside. Every order ends in the node's id: equal inputs give equal placements.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Protocol

from coordinator.core.filters import ROOM, concerning, passes
from coordinator.core.room import Ask, Room

Score = tuple[float | str, ...]
_Entry = tuple[int, float, str, Room]
_Owned = tuple[int, int, float, str, Room]


class Line(Protocol):
    """The candidates of a pool for equal asks of one container, best first."""

    def best(self) -> tuple[Score, Room] | None:
        """The node the next instance goes to, unless somebody fills it first; None when no node is left."""

    def close(self) -> None:
        """Give back what was set aside."""


class SpreadPool:
    def __init__(self, rooms: Iterable[Room]) -> None:
        self.heap: list[_Entry] = [_entry(room) for room in rooms]
        heapify(self.heap)

    def line(self, ask: Ask) -> "SpreadLine":
        return SpreadLine(self.heap, ask)


class SpreadLine:
    """Fewest instances of the same container first: nodes without any come straight from the pool's heap, the others (never
    more than the container has slots) are kept in a small heap of their own."""

    def __init__(self, heap: list[_Entry], ask: Ask) -> None:
        self._heap = heap
        self._ask = ask
        self._rules = concerning(ask, ROOM)
        self._container = ask.demand.container_id
        self._owned: list[_Owned] = []
        self._aside: list[Room] = []

    def best(self) -> tuple[Score, Room] | None:
        heap = self._heap
        while heap:
            count, load, node_id, room = heap[0]
            if (count, load) != (room.count, room.load):
                heapreplace(heap, _entry(room))
            elif own := room.own(self._container):
                heappop(heap)
                self._aside.append(room)
                heappush(self._owned, (own, *_entry(room)))
            elif passes(room, self._ask, self._rules):
                return (0, count, load, node_id), room
            else:
                heappop(heap)
                self._aside.append(room)
        return self._best_owned()

    def close(self) -> None:
        for room in self._aside:
            heappush(self._heap, _entry(room))
        self._aside.clear()

    def _best_owned(self) -> tuple[Score, Room] | None:
        owned = self._owned
        while owned:
            own, count, load, node_id, room = owned[0]
            if (own, count, load) != (room.own(self._container), room.count, room.load):
                heapreplace(owned, (room.own(self._container), *_entry(room)))
            elif passes(room, self._ask, self._rules):
                return (own, count, load, node_id), room
            else:
                heappop(owned)
        return None


class PackPool:
    def __init__(self, rooms: Iterable[Room]) -> None:
        self._used: list[Room] = []
        self._empty = list(rooms)

    def line(self, ask: Ask) -> "PackLine":
        opened = [room for room in self._empty if room.count]
        if opened:
            self._used += opened
            self._empty = [room for room in self._empty if not room.count]
        self._used.sort(key=_fullness)
        return PackLine(self._used, self._empty, ask)


class PackLine:
    """Fullest first, and once no used node admits it, of the empty ones the one that takes most of these instances, so that few
    are opened. The order is fixed for the line: the node being filled only gets fuller, and is left for good once it refuses."""

    def __init__(self, used: list[Room], empty: list[Room], ask: Ask) -> None:
        self._ask = ask
        self._rules = concerning(ask, ROOM)
        self._used = iter(used)
        self._filling = next(self._used, None)
        self._empty = empty
        self._heap: list[tuple[Score, Room]] | None = None

    def best(self) -> tuple[Score, Room] | None:
        while self._filling is not None:
            if passes(self._filling, self._ask, self._rules):
                return (0, *_fullness(self._filling)), self._filling
            self._filling = next(self._used, None)
        return self._best_empty()

    def close(self) -> None:
        self._used = iter(())

    def _best_empty(self) -> tuple[Score, Room] | None:
        if self._heap is None:
            self._heap = [((1, -room.fits(self._ask), 0, room.node_id), room) for room in self._empty]
            heapify(self._heap)
        while self._heap:
            score, room = self._heap[0]
            if passes(room, self._ask, self._rules):
                return score, room
            heappop(self._heap)
        return None


def _fullness(room: Room) -> tuple[float, int, str]:
    return -room.load, -room.count, room.node_id


def _entry(room: Room) -> _Entry:
    return room.count, room.load, room.node_id, room
