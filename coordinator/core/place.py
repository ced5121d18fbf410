"""Which node each pending instance goes to, or why none.

Bound instances are laid down first and never move: placement repairs nothing by itself, it only fills in. Pending ones are taken
oldest demand first (ids sort by creation), so that a large old one is not starved by small new ones. Equal asks are
answered together along one line of candidates, and explained once, which keeps the work near to instances plus nodes.

The order among admitting nodes: with a spread label first the value that holds fewest of the container; then fewest slots of
the container on the node (`pools.py` has the rest). A slot goes back to the node it was on when that is as good by these
two: its image is there, and a rollout leaves the layout as it was.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace

from coordinator.core.filters import IN_PLACE, ROOM, STANDING, Filter, concerning, passes, refusal
from coordinator.core.pools import Line, PackPool, Score, SpreadPool
from coordinator.core.room import Ask, Bound, NodeView, Pending, Room
from shared.spec.reason import UNPLACED, Reason

_Rank = tuple[int, Score, int]
NO_NODES = Reason(UNPLACED, "the cluster has no nodes yet: add one with cluster.joinToken")


@dataclass(frozen=True)
class Placement:
    """Each pending instance is in exactly one of the two."""

    bound: Mapping[str, str]
    unplaced: Mapping[str, Reason]


def place(nodes: Iterable[NodeView], bound: Iterable[Bound], pending: Iterable[Pending]) -> Placement:
    floor = _Floor(nodes)
    for instance in sorted(bound, key=lambda each: each.instance_id):
        floor.lay_down(instance)
    groups: dict[Ask, list[Pending]] = defaultdict(list)
    for each in sorted(pending, key=lambda each: each.instance_id):
        groups[each.ask].append(each)
    placed: dict[str, str] = {}
    refused: list[Pending] = []
    for ask, members in groups.items():
        for each, room in zip(members, floor.answer(ask, members), strict=True):
            if room is None:
                refused.append(each)
            else:
                placed[each.instance_id] = room.node_id
    return Placement(placed, _explained(floor, refused))


class _Floor:
    """All rooms of a cluster, where each container's slots are, and the pools that asks share."""

    def __init__(self, nodes: Iterable[NodeView]) -> None:
        self.rooms = {node.node_id: Room(node) for node in sorted(nodes, key=lambda node: node.node_id)}
        self._holding: dict[str, set[str]] = defaultdict(set)
        self._pools: dict[object, list[tuple[str, SpreadPool | PackPool]]] = {}
        self._hopeless: set[Ask] = set()

    def lay_down(self, instance: Bound) -> None:
        room = self.rooms.get(instance.node_id)
        if room is None:
            return
        room.take(instance.demand, instance.slot, instance.disk_bytes, leaving=instance.leaving)
        if not instance.leaving:
            self._holding[instance.demand.container_id].add(instance.node_id)

    def answer(self, ask: Ask, members: Sequence[Pending]) -> list[Room | None]:
        """A room for each member, already taken, or None. What one container was refused everywhere another need not ask for."""
        anonymous = _anonymous(ask)
        if anonymous in self._hopeless:
            return [None] * len(members)
        pools = [] if ask.home is not None else self._pools_for(ask)
        row = _Row(ask, [(value, pool.line(ask)) for value, pool in pools], self._by_value(ask))
        answers: list[Room | None] = []
        for each in members:
            room = self._at_home(each) if ask.home is not None else self._choose(row, each)
            if room is not None:
                row.count(room, each.slot)
                room.take(ask.demand, each.slot, ask.disk_bytes)
                self._holding[ask.demand.container_id].add(room.node_id)
            answers.append(room)
        if None in answers:
            self._hopeless.add(anonymous)
        row.close()
        return answers

    def _choose(self, row: "_Row", each: Pending) -> Room | None:
        best = row.best()
        previous = self._previous(each)
        if previous is None or (best is not None and row.is_worse(previous, each.slot, best)):
            return best
        return previous

    def _previous(self, each: Pending) -> Room | None:
        room = self.rooms.get(each.previous or "")
        return room if room is not None and _takes_back(room, each) else None

    def _at_home(self, each: Pending) -> Room | None:
        room = self.rooms.get(each.ask.home or "")
        return room if room is not None and _takes_back(room, each) else None

    def _pools_for(self, ask: Ask) -> list[tuple[str, SpreadPool | PackPool]]:
        demand = ask.demand
        key = (demand.platform, demand.node_ids, demand.constraints, demand.spread, demand.pack)
        found = self._pools.get(key)
        if found is None:
            found = self._pools[key] = self._make_pools(ask)
        return found

    def _make_pools(self, ask: Ask) -> list[tuple[str, SpreadPool | PackPool]]:
        rules = concerning(ask, STANDING)
        by_value: dict[str, list[Room]] = defaultdict(list)
        for room in self.rooms.values():
            if passes(room, ask, rules):
                by_value[_value(room, ask)].append(room)
        make = PackPool if ask.demand.pack else SpreadPool
        return [(value, make(rooms)) for value, rooms in sorted(by_value.items())]

    def _by_value(self, ask: Ask) -> Counter[str]:
        """The container's slots by value of the spread label, on all nodes: those that admit nothing new count as well."""
        if ask.demand.spread is None:
            return Counter()
        container = ask.demand.container_id
        held = (self.rooms[node_id] for node_id in self._holding[container])
        counts: Counter[str] = Counter()
        for room in held:
            counts[_value(room, ask)] += room.own(container)
        return counts


class _Row:
    """The lines of one ask side by side, one for each value of its spread label; without one, a single line."""

    def __init__(self, ask: Ask, lines: list[tuple[str, Line]], by_value: Counter[str]) -> None:
        self._ask = ask
        self._lines = lines
        self._by_value = by_value
        self._heap = [rank[0] for index in range(len(lines)) if len(lines) > 1 and (rank := self._rank(index))]
        heapify(self._heap)

    def best(self) -> Room | None:
        if len(self._lines) == 1:
            found = self._lines[0][1].best()
            return found[1] if found is not None else None
        while self._heap:
            top = self._heap[0]
            fresh = self._rank(top[2])
            if fresh is None:
                heappop(self._heap)
            elif fresh[0] == top:
                return fresh[1]
            else:
                heapreplace(self._heap, fresh[0])
        return None

    def count(self, room: Room, slot: int) -> None:
        """To be called before the slot is laid down there."""
        if self._ask.demand.spread is not None and not self._is_there(room, slot):
            self._by_value[_value(room, self._ask)] += 1

    def is_worse(self, previous: Room, slot: int, best: Room) -> bool:
        """Whether going back would leave the container less evenly spread, once the slot's last instance is gone."""
        if self._ask.demand.pack:
            return True
        leaves = previous if self._is_there(previous, slot) else None
        return self._evenness(previous, leaves) > self._evenness(best, leaves)

    def _evenness(self, room: Room, leaves: Room | None) -> tuple[int, int]:
        by_value, own = self._by_value[_value(room, self._ask)], room.own(self._ask.demand.container_id)
        if leaves is None:
            return by_value, own
        return by_value - (_value(room, self._ask) == _value(leaves, self._ask)), own - (room is leaves)

    def _is_there(self, room: Room, slot: int) -> bool:
        return slot in room.slots.get(self._ask.demand.container_id, ())

    def close(self) -> None:
        for _, line in self._lines:
            line.close()

    def _rank(self, index: int) -> tuple[_Rank, Room] | None:
        value, line = self._lines[index]
        found = line.best()
        if found is None:
            return None
        score, room = found
        return (self._by_value[value], score, index), room


def _takes_back(room: Room, each: Pending) -> bool:
    """Whether a slot may go (back) to this node; one that is still there adds no slot to it."""
    there = each.slot in room.slots.get(each.ask.demand.container_id, ())
    rules = (*STANDING, *IN_PLACE) if there else (*STANDING, *ROOM)
    return passes(room, each.ask, concerning(each.ask, rules))


def _value(room: Room, ask: Ask) -> str:
    """Nodes without the spread label share a value of their own."""
    spread = ask.demand.spread
    return "" if spread is None else room.node.labels.get(spread, "")


def _explained(floor: _Floor, refused: Sequence[Pending]) -> dict[str, Reason]:
    known: dict[Ask, Reason] = {}
    reasons: dict[str, Reason] = {}
    for each in refused:
        ask = _anonymous(each.ask)
        if ask not in known:
            known[ask] = _reason(floor.rooms, each.ask)
        reasons[each.instance_id] = known[ask]
    return reasons


def _anonymous(ask: Ask) -> Ask:
    """Without a limit per node it does not matter whose instance was refused."""
    return ask if ask.demand.max_per_node else replace(ask, demand=replace(ask.demand, container_id=""))


def _reason(rooms: Mapping[str, Room], ask: Ask) -> Reason:
    if not rooms:
        return NO_NODES
    if ask.home is not None:
        return Reason(UNPLACED, _home_sentence(rooms.get(ask.home), ask))
    counts: Counter[Filter] = Counter()
    for room in rooms.values():
        rule = refusal(room, ask)
        assert rule is not None, "a node that refused an instance refuses it for the rest of the run"
        counts[rule] += 1
    return Reason(UNPLACED, _sentence([(count, rule.explain(count, ask)) for rule, count in counts.items()]))


def _sentence(found: list[tuple[int, str]]) -> str:
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    total = sum(count for count, _ in found)
    (first, phrase), *others = found
    head = f"{first} of {total} node{'s' if total > 1 else ''} {phrase}"
    return ", ".join([head, *(f"{count} {phrase}" for count, phrase in others)])


def _home_sentence(room: Room | None, ask: Ask) -> str:
    if room is None:
        return f"its volumes live on node {ask.home}, which is no longer part of the cluster"
    rule = refusal(room, ask)
    name = room.node.hostname or room.node_id
    assert rule is not None, "a node that refused an instance refuses it for the rest of the run"
    return f"its volumes live on node {name}, which {rule.explain(1, ask)}"
