"""Placement never overfills, never forgets, and answers the same whatever order it is asked in."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.filters import refusal
from coordinator.core.place import Placement, place
from coordinator.core.room import Ask, Bound, Demand, NodeView, Pending, Room, Taken
from shared.spec.reason import UNPLACED

Cluster = tuple[list[NodeView], list[Bound], list[Pending]]

ZONES = ("a", "b")
node_ids = st.sampled_from([f"node_{number}" for number in range(7)])


def node_views(node_id: str) -> st.SearchStrategy[NodeView]:
    return st.builds(
        NodeView,
        node_id=st.just(node_id),
        hostname=st.just(node_id.replace("node", "host")),
        platform=st.sampled_from(("linux/amd64", "linux/amd64", "linux/arm64")),
        labels=st.dictionaries(st.sampled_from(("zone", "disk")), st.sampled_from(ZONES), max_size=2),
        availability=st.sampled_from(("active",) * 9 + ("cordoned", "draining", "drained")),
        connected=st.sampled_from((True,) * 9 + (False,)),
        lost=st.sampled_from((False,) * 9 + (True,)),
        engine_answers=st.sampled_from((True,) * 9 + (False,)),
        cpu_millis=st.sampled_from((0, 500, 1000, 4000)),
        memory_bytes=st.sampled_from((0, 512, 1024, 4096)),
        disk_free=st.sampled_from((0, 100)),
    )


def demands(container_id: str) -> st.SearchStrategy[Demand]:
    return st.builds(
        Demand,
        container_id=st.just(container_id),
        cpu_millis=st.sampled_from((0, 0, 100, 500)),
        memory_bytes=st.sampled_from((0, 0, 128, 600)),
        ports=st.frozensets(st.sampled_from(((80, "tcp"), (80, "udp"), (443, "tcp"))), max_size=1),
        constraints=st.sampled_from(((), (), ("zone==a",), ("zone!=b",), ("node.hostname!=host_1", "zone==a"))),
        node_ids=st.just(frozenset()) | st.frozensets(node_ids, max_size=4),
        platform=st.sampled_from((None, None, "linux/amd64")),
        max_per_node=st.sampled_from((None, None, 1, 2)),
        spread=st.sampled_from((None, None, "zone")),
        pack=st.booleans(),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = [draw(node_views(node_id)) for node_id in sorted(draw(st.sets(node_ids, max_size=5)))]
    wanted = [draw(demands(f"ctr_{number}")) for number in range(draw(st.integers(1, 2)))]
    pending: list[Pending] = []
    bound: list[Bound] = []
    extras = st.tuples(
        *(st.none() | node_ids, st.sampled_from((None, False, True)), st.none() | st.none() | node_ids),
        *(st.frozensets(node_ids, max_size=1), st.sampled_from((0, 0, 60))),
    )
    for demand in wanted:
        for slot, extra in enumerate(draw(st.lists(extras, max_size=5))):
            previous, leaving, home, avoided, disk_bytes = extra
            if previous is not None and leaving is not None:
                # Its room is its own concern: what is bound stays, even on a node that became too small.
                bound.append(Bound(f"old_{len(bound):03}", previous, slot, demand, leaving=leaving))
            ask = Ask(demand, home, avoided, disk_bytes)
            pending.append(Pending(f"inst_{len(pending):03}", slot, ask, previous))
    return nodes, bound, pending


def rooms_after(cluster: Cluster, placement: Placement) -> dict[str, Room]:
    nodes, bound, pending = cluster
    rooms = {node.node_id: Room(node) for node in nodes}
    for old in bound:
        if old.node_id in rooms:
            rooms[old.node_id].take(old.demand, old.slot, old.disk_bytes, leaving=old.leaving)
    for new in pending:
        if new.instance_id in placement.bound:
            rooms[placement.bound[new.instance_id]].take(new.ask.demand, new.slot, new.ask.disk_bytes)
    return rooms


@given(clusters())
def test_every_instance_is_bound_or_refused_by_all_nodes_and_explained(cluster: Cluster) -> None:
    placement = place(*cluster)
    assert placement.bound.keys() | placement.unplaced.keys() == {each.instance_id for each in cluster[2]}
    assert not placement.bound.keys() & placement.unplaced.keys()
    rooms = rooms_after(cluster, placement)
    for each in cluster[2]:
        if each.instance_id in placement.unplaced:
            reason = placement.unplaced[each.instance_id]
            assert reason.code == UNPLACED
            assert reason.message
            candidates = [room for room in rooms.values() if each.ask.home in (None, room.node_id)]
            assert all(refusal(room, each.ask) is not None for room in candidates)


@given(clusters())
def test_no_node_is_filled_beyond_what_it_has(cluster: Cluster) -> None:
    nodes, bound, pending = cluster
    placement = place(*cluster)
    asks = {each.instance_id: each.ask for each in pending}
    before = rooms_after(cluster, Placement({}, {}))
    after = rooms_after(cluster, placement)
    for node in nodes:
        here = [asks[each] for each, node_id in placement.bound.items() if node_id == node.node_id]
        then, now = before[node.node_id], after[node.node_id]
        assert now.cpu >= 0 or now.cpu == then.cpu
        assert now.memory >= 0 or now.memory == then.memory
        assert now.disk >= 0 or now.disk == then.disk
        claimed = Counter(port for ask in here for port in ask.demand.ports)
        claimed.update(
            port for old in bound if old.node_id == node.node_id for port in old.demand.ports if claimed[port]
        )
        olds = Counter(port for old in bound if old.node_id == node.node_id for port in old.demand.ports)
        assert all(count == 1 or olds[port] == count for port, count in claimed.items())
        for ask in here:
            limit, container = ask.demand.max_per_node, ask.demand.container_id
            assert limit is None or now.own(container) <= max(limit, then.own(container))


@given(clusters())
def test_every_rule_of_the_declaration_holds_where_an_instance_went(cluster: Cluster) -> None:
    nodes, _, pending = cluster
    placement = place(*cluster)
    by_id = {node.node_id: node for node in nodes}
    for each in pending:
        node_id = placement.bound.get(each.instance_id)
        if node_id is None:
            continue
        node, ask, demand = by_id[node_id], each.ask, each.ask.demand
        assert node.availability == "active"
        assert node.connected
        assert not node.lost
        assert node.engine_answers
        assert demand.platform in (None, node.platform)
        assert not demand.node_ids or node_id in demand.node_ids
        assert node_id not in ask.avoided
        assert ask.home in (None, node_id)
        assert "zone==a" not in demand.constraints or node.labels.get("zone") == "a"
        assert "zone!=b" not in demand.constraints or node.labels.get("zone") != "b"
        assert "node.hostname!=host_1" not in demand.constraints or node.hostname != "host_1"


@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_irrelevant(cluster: Cluster, random: Random) -> None:
    nodes, bound, pending = cluster
    shuffled = random.sample(nodes, len(nodes)), random.sample(bound, len(bound)), random.sample(pending, len(pending))
    assert place(*shuffled) == place(*cluster)


@given(clusters())
def test_of_containers_with_nothing_to_place_only_the_sum_matters(cluster: Cluster) -> None:
    nodes, bound, pending = cluster
    wanted = {each.ask.demand.container_id for each in pending[:1]}
    pending = [each for each in pending if each.ask.demand.container_id in wanted]
    others = [old for old in bound if old.demand.container_id not in wanted]
    known = [old for old in bound if old.demand.container_id in wanted]

    def summed(node: NodeView) -> NodeView:
        here = [old for old in others if old.node_id == node.node_id]
        taken = Taken(
            cpu_millis=sum(old.demand.cpu_millis for old in here),
            memory_bytes=sum(old.demand.memory_bytes for old in here),
            disk_bytes=sum(old.disk_bytes for old in here),
            ports=frozenset(port for old in here for port in old.demand.ports),
            count=len(here),
        )
        return replace(node, taken=taken)

    assert place([summed(node) for node in nodes], known, pending) == place(nodes, bound, pending)


@given(clusters())
def test_placing_again_changes_nothing(cluster: Cluster) -> None:
    nodes, bound, pending = cluster
    first = place(*cluster)
    laid = [
        Bound(each.instance_id, first.bound[each.instance_id], each.slot, each.ask.demand, False, each.ask.disk_bytes)
        for each in pending
        if each.instance_id in first.bound
    ]
    left = [each for each in pending if each.instance_id in first.unplaced]
    again = place(nodes, [*bound, *laid], left)
    assert again.bound == {}
    assert again.unplaced == first.unplaced


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from((None, 1, 2)),
)
def test_packing_opens_no_more_nodes_than_spreading(
    sizes: Sequence[tuple[int, int]], replicas: int, each: int, limit: int | None
) -> None:
    nodes = [NodeView(f"node_{n}", cpu_millis=cpu, memory_bytes=memory) for n, (cpu, memory) in enumerate(sizes)]
    demand = Demand("ctr", cpu_millis=each, memory_bytes=1, max_per_node=limit)
    packed, spread = (
        place(
            nodes, (), [Pending(f"inst_{slot:02}", slot, Ask(replace(demand, pack=pack))) for slot in range(replicas)]
        )
        for pack in (True, False)
    )
    assert len(packed.bound) == len(spread.bound)
    assert len(set(packed.bound.values())) <= len(set(spread.bound.values()))


@given(st.integers(1, 6), st.integers(1, 20))
def test_equal_nodes_share_a_container_evenly(nodes: int, replicas: int) -> None:
    fleet = [NodeView(f"node_{n}") for n in range(nodes)]
    placement = place(fleet, (), [Pending(f"inst_{slot:02}", slot, Ask(Demand("ctr"))) for slot in range(replicas)])
    counts = Counter(placement.bound.values())
    assert max(counts.values()) - min(counts[node.node_id] for node in fleet) <= 1


@given(st.lists(st.sampled_from(("", *ZONES)), min_size=1, max_size=6), st.integers(1, 20))
def test_the_values_of_a_spread_label_share_a_container_evenly(zones: list[str], replicas: int) -> None:
    fleet = [NodeView(f"node_{n}", labels={"zone": zone} if zone else {}) for n, zone in enumerate(zones)]
    ask = Ask(Demand("ctr", spread="zone"))
    placement = place(fleet, (), [Pending(f"inst_{slot:02}", slot, ask) for slot in range(replicas)])
    counts: dict[str, int] = defaultdict(int)
    for node_id in placement.bound.values():
        counts[zones[int(node_id.removeprefix("node_"))]] += 1
    assert max(counts.values()) - min(counts[zone] for zone in set(zones)) <= 1


@given(st.integers(1, 5), st.integers(1, 12))
def test_replacing_slot_by_slot_with_surge_leaves_every_slot_where_it_was(nodes: int, replicas: int) -> None:
    """The layout of a spread container survives a rollout, so its images and its balance do as well."""
    fleet = [NodeView(f"node_{n}") for n in range(nodes)]
    ask = Ask(Demand("ctr"))
    layout = place(fleet, (), [Pending(f"old_{slot:02}", slot, ask) for slot in range(replicas)]).bound
    running = {slot: Bound(f"old_{slot:02}", layout[f"old_{slot:02}"], slot, ask.demand) for slot in range(replicas)}
    for slot in range(replicas):
        was = running[slot].node_id
        new = place(fleet, running.values(), [Pending(f"new_{slot:02}", slot, ask, previous=was)]).bound
        assert new == {f"new_{slot:02}": was}
        running[slot] = Bound(f"new_{slot:02}", was, slot, ask.demand)
