"""Placement by example: the order among nodes, and the sentences people read."""

from dataclasses import replace

import pytest

from coordinator.core.place import place
from coordinator.core.room import Ask, Bound, Demand, NodeView, Pending, Taken

GIB = 2**30
NODE = NodeView("node_a", hostname="a", platform="linux/amd64", cpu_millis=2000, memory_bytes=4 * GIB, disk_free=GIB)
WEB = Demand("ctr_web")


def fleet(*names: str, **changes: object) -> list[NodeView]:
    return [replace(NODE, node_id=f"node_{name}", hostname=name, **changes) for name in names]  # type: ignore[arg-type]


def sentence(nodes: list[NodeView], ask: Ask, *bound: Bound) -> str:
    placement = place(nodes, bound, [Pending("inst", 0, ask)])
    assert not placement.bound
    return placement.unplaced["inst"].message


def goes_to(nodes: list[NodeView], pending: Pending, *bound: Bound) -> str:
    return place(nodes, bound, [pending]).bound[pending.instance_id]


def test_without_nodes_it_says_how_to_add_one() -> None:
    assert sentence([], Ask(WEB)) == "the cluster has no nodes yet: add one with cluster.joinToken"


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (replace(WEB, memory_bytes=512 * 2**20 + 4 * GIB), "2 of 2 nodes lack 4.5 GiB"),
        (replace(WEB, cpu_millis=2500), "2 of 2 nodes lack 2.5 CPU"),
        (replace(WEB, platform="linux/arm64"), "2 of 2 nodes are not linux/arm64"),
        (replace(WEB, constraints=("zone==b", "disk!=hdd")), "2 of 2 nodes do not match zone==b and disk!=hdd"),
        (replace(WEB, node_ids=frozenset({"node_z"})), "2 of 2 nodes are not among the nodeIds of its placement"),
    ],
)
def test_what_nodes_lack(demand: Demand, words: str) -> None:
    assert sentence(fleet("a", "b"), Ask(demand)) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"availability": "cordoned"}, "1 of 1 node is cordoned"),
        ({"availability": "draining"}, "1 of 1 node is draining"),
        ({"availability": "drained"}, "1 of 1 node is drained"),
        ({"lost": True, "connected": False}, "1 of 1 node is lost"),
        ({"connected": False}, "1 of 1 node is not connected"),
        ({"engine_answers": False}, "1 of 1 node has an engine that does not answer"),
    ],
)
def test_what_nodes_are(change: dict[str, object], words: str) -> None:
    assert sentence(fleet("a", **change), Ask(WEB)) == words


def test_nodes_are_counted_once_each_and_the_largest_count_comes_first() -> None:
    nodes = [*fleet("a", "b", "c"), *fleet("d", "e", availability="cordoned")]
    words = "3 of 5 nodes lack 8 GiB, 2 are cordoned"
    assert sentence(nodes, Ask(replace(WEB, memory_bytes=8 * GIB))) == words


def test_what_others_on_the_node_leave() -> None:
    port = replace(WEB, ports=frozenset({(80, "tcp")}))
    other = Bound("old", "node_a", 0, replace(port, container_id="ctr_other"))
    assert sentence(fleet("a"), Ask(port), other) == "1 of 1 node has the host port 80/tcp taken"
    two = replace(port, ports=frozenset({(443, "tcp"), (80, "tcp")}))
    assert sentence(fleet("a"), Ask(two), other) == "1 of 1 node has one of the host ports 80/tcp, 443/tcp taken"
    udp = replace(WEB, ports=frozenset({(80, "udp")}))
    assert goes_to(fleet("a"), Pending("inst", 0, Ask(udp)), other) == "node_a"
    limited = replace(WEB, max_per_node=1)
    there = Bound("old", "node_a", 7, limited)
    words = "1 of 1 node already has 1 of its instances, as many as maxPerNode allows"
    assert sentence(fleet("a"), Ask(limited), there) == words


def test_disk_home_and_refusals() -> None:
    assert sentence(fleet("a"), Ask(WEB, disk_bytes=2 * GIB)) == "1 of 1 node lacks 2 GiB of free disk"
    assert sentence(fleet("a"), Ask(WEB, avoided=frozenset({"node_a"}))) == "1 of 1 node just refused it"
    gone = Ask(WEB, home="node_z")
    assert sentence(fleet("a"), gone) == "its volumes live on node node_z, which is no longer part of the cluster"
    nodes = [*fleet("a", availability="draining"), *fleet("b")]
    assert sentence(nodes, Ask(WEB, home="node_a")) == "its volumes live on node a, which is draining"


def test_an_instance_on_its_way_out_holds_its_room_but_not_its_slot() -> None:
    limited = replace(WEB, max_per_node=1, memory_bytes=2 * GIB)
    leaving = Bound("old", "node_a", 1, limited, leaving=True)
    assert goes_to(fleet("a"), Pending("inst", 0, Ask(limited)), leaving) == "node_a"
    big = replace(limited, memory_bytes=3 * GIB)
    assert sentence(fleet("a"), Ask(big), leaving) == "1 of 1 node lacks 3 GiB"


def test_a_replacement_may_stand_beside_what_it_replaces_where_each_node_takes_one() -> None:
    """Or a rollout with a surge could never begin on a full cluster."""
    limited = replace(WEB, max_per_node=1)
    nodes = fleet("a", "b")
    running = [Bound(f"old_{slot}", node.node_id, slot, limited) for slot, node in enumerate(nodes)]
    assert goes_to(nodes, Pending("new", 1, Ask(limited), previous="node_b"), *running) == "node_b"


def test_a_demand_of_nothing_is_admitted_by_a_node_that_is_overfull() -> None:
    overfull = Bound("old", "node_a", 0, Demand("ctr_big", memory_bytes=9 * GIB))
    assert goes_to(fleet("a"), Pending("inst", 0, Ask(WEB)), overfull) == "node_a"


def test_fewest_of_the_same_container_come_before_fewest_of_all() -> None:
    nodes = fleet("a", "b")
    bound = [Bound("own", "node_a", 0, WEB), *(Bound(f"o{n}", "node_b", n, Demand("ctr_other")) for n in range(5))]
    assert goes_to(nodes, Pending("inst", 1, Ask(WEB)), *bound) == "node_b"
    assert goes_to(nodes, Pending("inst", 0, Ask(Demand("ctr_third"))), *bound) == "node_a"


def test_with_equal_counts_the_emptier_node_is_taken_and_then_the_smaller_id() -> None:
    nodes = fleet("a", "b")
    heavy, light = Demand("ctr_x", memory_bytes=2 * GIB), Demand("ctr_y", memory_bytes=GIB)
    bound = [Bound("x", "node_a", 0, heavy), Bound("y", "node_b", 0, light)]
    assert goes_to(nodes, Pending("inst", 0, Ask(WEB)), *bound) == "node_b"
    assert goes_to(fleet("b", "a"), Pending("inst", 0, Ask(WEB))) == "node_a"


def test_singles_of_many_containers_use_all_values_of_a_spread_label() -> None:
    nodes = [*fleet("a", labels={"zone": "x"}), *fleet("b", labels={"zone": "y"})]
    pending = [Pending(f"inst_{n}", 0, Ask(Demand(f"ctr_{n}", spread="zone"))) for n in range(10)]
    found = list(place(nodes, (), pending).bound.values())
    assert found.count("node_a") == found.count("node_b") == 5


def test_a_spread_label_counts_what_is_on_nodes_that_take_nothing_new() -> None:
    nodes = [*fleet("a", labels={"zone": "x"}, availability="cordoned"), *fleet("b", labels={"zone": "x"})]
    nodes += fleet("c", labels={"zone": "y"})
    spread = replace(WEB, spread="zone")
    bound = [Bound("o0", "node_a", 0, spread), Bound("o1", "node_c", 1, spread), Bound("o2", "node_a", 2, spread)]
    assert goes_to(nodes, Pending("inst", 3, Ask(spread)), *bound) == "node_c"


def test_packing_fills_the_fullest_and_then_opens_the_one_that_takes_most() -> None:
    small, large = fleet("a", memory_bytes=2 * GIB), fleet("b", memory_bytes=6 * GIB)
    packed = Demand("ctr", memory_bytes=GIB, pack=True)
    pending = [Pending(f"inst_{slot}", slot, Ask(packed)) for slot in range(7)]
    found = place([*small, *large], (), pending).bound
    assert [found[f"inst_{slot}"] for slot in range(7)] == ["node_b"] * 6 + ["node_a"]
    half = Bound("other", "node_a", 0, Demand("ctr_other", memory_bytes=GIB))
    assert goes_to([*small, *large], pending[0], half) == "node_a"


def test_an_older_demand_is_served_before_a_newer_one() -> None:
    old, new = Demand("ctr_old", memory_bytes=3 * GIB), Demand("ctr_new", memory_bytes=2 * GIB)
    placement = place(fleet("a"), (), [Pending("inst_2", 0, Ask(new)), Pending("inst_1", 0, Ask(old))])
    assert set(placement.bound) == {"inst_1"}
    assert set(placement.unplaced) == {"inst_2"}


def test_going_back_is_given_up_for_an_even_spread() -> None:
    """A rollout mends what a node that was away left uneven."""
    nodes = fleet("a", "b")
    skewed = [Bound(f"old_{slot}", "node_a", slot, WEB) for slot in range(3)]
    assert goes_to(nodes, Pending("new", 0, Ask(WEB), previous="node_a"), *skewed) == "node_b"
    even = [*skewed[:2], Bound("old_2", "node_b", 2, WEB)]
    assert goes_to(nodes, Pending("new", 0, Ask(WEB), previous="node_a"), *even) == "node_a"
    assert goes_to(nodes, Pending("new", 2, Ask(WEB), previous="node_b"), *even) == "node_b"


def test_going_back_is_weighed_by_the_spread_label_first() -> None:
    nodes = [*fleet("a", "b", labels={"zone": "x"}), *fleet("c", labels={"zone": "y"})]
    spread = replace(WEB, spread="zone")
    skewed = [
        Bound("old_0", "node_a", 0, spread),
        Bound("old_1", "node_b", 1, spread),
        Bound("o2", "node_a", 2, spread),
    ]
    assert goes_to(nodes, Pending("new", 0, Ask(spread), previous="node_a"), *skewed) == "node_c"
    even = [*skewed[:2], Bound("o2", "node_c", 2, spread), Bound("o3", "node_c", 3, spread)]
    assert goes_to(nodes, Pending("new", 2, Ask(spread), previous="node_c"), *even) == "node_c"


def test_a_slot_replaced_on_the_spot_counts_once_for_its_label() -> None:
    nodes = [*fleet("a", labels={"zone": "x"}), *fleet("b", labels={"zone": "y"}, taken=Taken(count=5))]
    ask = Ask(replace(WEB, spread="zone"))
    bound = [Bound("old_0", "node_a", 0, ask.demand), Bound("old_1", "node_b", 1, ask.demand)]
    pending = [Pending("new_0", 0, ask, previous="node_a"), Pending("new_2", 2, ask)]
    assert place(nodes, bound, pending).bound == {"new_0": "node_a", "new_2": "node_a"}


def test_a_limit_per_node_that_stops_one_container_does_not_stop_another() -> None:
    limited = replace(WEB, max_per_node=1)
    other = replace(limited, container_id="ctr_xother")
    placement = place(
        fleet("a"),
        [Bound("old", "node_a", 7, limited)],
        [Pending("i_1", 0, Ask(limited)), Pending("i_2", 0, Ask(other))],
    )
    assert (set(placement.bound), set(placement.unplaced)) == ({"i_2"}, {"i_1"})


def test_what_others_hold_in_sum_counts_in_every_way() -> None:
    taken = Taken(cpu_millis=1900, memory_bytes=3 * GIB, disk_bytes=GIB, ports=frozenset({(80, "tcp")}), count=1)
    full = fleet("a", taken=taken)
    assert sentence(full, Ask(replace(WEB, cpu_millis=200))) == "1 of 1 node lacks 0.2 CPU"
    assert sentence(full, Ask(replace(WEB, memory_bytes=2 * GIB))) == "1 of 1 node lacks 2 GiB"
    assert sentence(full, Ask(WEB, disk_bytes=1)) == "1 of 1 node lacks 1 B of free disk"
    assert "80/tcp" in sentence(full, Ask(replace(WEB, ports=frozenset({(80, "tcp")}))))
    busy = [*fleet("a", taken=Taken(count=1)), *fleet("b")]
    assert goes_to(busy, Pending("inst", 0, Ask(WEB))) == "node_b"
