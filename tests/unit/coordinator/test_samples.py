"""Metrics in memory: what is kept, for how long, and that it stays bounded."""

import pytest

from coordinator.control import samples as module
from coordinator.control.samples import FORGOTTEN_AFTER, LONGEST, MOST_PER_NODE, SHORTEST, Samples
from shared.spec.node import HostSample, InstanceSample


def host(at: float) -> HostSample:
    return HostSample(at=at, cpu=0.5, memory_used=2**40 + 1, memory_total=2**41, disk_free=7, load1=0.25)


def reading(instance_id: str, at: float) -> InstanceSample:
    return InstanceSample(instance_id, at, 0.125, 2**33 + 1, net_rx=2**45 + 1)


def test_what_goes_in_comes_out_exactly_and_in_order() -> None:
    samples = Samples()
    for at in (1.0, 2.0, 3.0):
        samples.add("node_a", host(at), [reading("inst_1", at), reading("inst_2", at)], at)
    assert samples.of_node("node_a") == [host(1.0), host(2.0), host(3.0)]
    assert samples.of_instance("node_a", "inst_1") == [reading("inst_1", at) for at in (1.0, 2.0, 3.0)]
    found = samples.of_instance("node_a", "inst_1")[0]
    assert type(found.memory) is int
    assert type(found.cpu) is float


def test_what_is_unknown_is_empty() -> None:
    assert Samples().of_node("node_a") == []
    assert Samples().of_instance("node_a", "inst_1") == []


def test_another_nodes_word_about_an_instance_is_kept_apart() -> None:
    samples = Samples()
    samples.add("node_a", host(1.0), [reading("inst_1", 1.0)], 1.0)
    samples.add("node_b", host(2.0), [reading("inst_1", 2.0)], 2.0)
    assert samples.of_instance("node_a", "inst_1") == [reading("inst_1", 1.0)]


def test_a_series_keeps_the_newest() -> None:
    samples = Samples()
    for at in range(LONGEST + 10):
        samples.add("node_a", host(at), [], float(at))
    kept = samples.of_node("node_a")
    assert (len(kept), kept[0].at, kept[-1].at) == (LONGEST, 10.0, LONGEST + 9.0)


def test_many_series_are_shorter_but_never_useless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READINGS", 1000)
    samples = Samples()
    names = [f"inst_{number}" for number in range(20)]
    for at in range(LONGEST):
        samples.add("node_a", host(at), [reading(name, at) for name in names], float(at))
    assert {len(samples.of_instance("node_a", name)) for name in names} == {50}
    samples.add("node_a", host(0), [reading(f"more_{number}", 0) for number in range(1000)], 0.0)
    samples.add("node_a", host(1), [reading("inst_0", 999)], 1.0)
    assert len(samples.of_instance("node_a", "inst_0")) == SHORTEST


def test_what_is_silent_for_long_is_forgotten() -> None:
    samples = Samples()
    samples.add("node_a", host(1.0), [reading("inst_1", 1.0)], 1.0)
    samples.add("node_b", host(1.0), [], FORGOTTEN_AFTER / 2)
    samples.add("node_b", host(1.0), [], FORGOTTEN_AFTER + 2.0)
    assert samples.of_node("node_a") == []
    assert samples.of_instance("node_a", "inst_1") == []
    assert len(samples.of_node("node_b")) == 2


def test_a_node_that_invents_instances_fills_its_own_share_only() -> None:
    samples = Samples()
    samples.add("node_b", host(1.0), [reading("inst_b", 1.0)], 1.0)
    invented = [reading(f"inst_{number}", 1.0) for number in range(MOST_PER_NODE + 5)]
    samples.add("node_a", host(1.0), invented, 1.0)
    kept = [one.instance_id for one in invented if samples.of_instance("node_a", one.instance_id)]
    assert kept == [f"inst_{number}" for number in range(MOST_PER_NODE)]
    samples.add("node_a", host(2.0), [reading("inst_0", 2.0), reading("inst_new", 2.0)], 2.0)
    assert len(samples.of_instance("node_a", "inst_0")) == 2
    assert samples.of_instance("node_a", "inst_new") == []
    assert len(samples.of_instance("node_b", "inst_b")) == 1


def test_there_is_room_again_once_others_were_silent_for_long() -> None:
    samples = Samples()
    samples.add("node_a", host(1.0), [reading(f"inst_{number}", 1.0) for number in range(MOST_PER_NODE)], 1.0)
    later = FORGOTTEN_AFTER + 2.0
    samples.add("node_a", host(later), [], later)
    samples.add("node_a", host(later), [reading("inst_new", later)], later)
    assert samples.of_instance("node_a", "inst_new") == [reading("inst_new", later)]
