"""The last minutes of metrics, in memory and bounded: what `container.stats` and `cluster.nodes` show.

A restart forgets them, which is the price of not writing a row per instance every few seconds. Readings are kept as packed numbers,
a tenth of what objects would take. With very many instances each keeps a shorter history: `MAX_READINGS` in all, or
`SHORTEST` for each where that is more. Series are kept per node and instance, so a node that reports on another node's instance
spoils nothing; and one that invents instances fills no more than its own `MOST_PER_NODE`.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from shared.spec.node import HostSample, InstanceSample

S = TypeVar("S", bound=msgspec.Struct)
K = TypeVar("K")

MAX_READINGS = 500_000
LONGEST, SHORTEST = 240, 24
MOST_PER_NODE = 1000
"""Instances of one node whose readings are kept; others are passed over until some of these were silent for long."""
FORGOTTEN_AFTER = 3600.0
"""Seconds without a reading after which a series is dropped."""


class Samples:
    def __init__(self) -> None:
        self._nodes: _Ring[str, HostSample] = _Ring(HostSample, ())
        self._instances: _Ring[tuple[str, str], InstanceSample] = _Ring(InstanceSample, ("instance_id",))
        self._known: Counter[str] = Counter()
        self._swept_at = 0.0

    def add(self, node_id: str, host: HostSample, instances: Iterable[InstanceSample], now: float) -> None:
        """`now`: the coordinator's monotonic time."""
        self._nodes.add(node_id, host, now)
        for sample in instances:
            key = node_id, sample.instance_id
            if key not in self._instances:
                if self._known[node_id] >= MOST_PER_NODE:
                    continue
                self._known[node_id] += 1
            self._instances.add(key, sample, now)
        if now - self._swept_at > FORGOTTEN_AFTER / 4:
            self._swept_at = now
            self._nodes.sweep(now - FORGOTTEN_AFTER)
            self._instances.sweep(now - FORGOTTEN_AFTER)
            self._known = Counter(key[0] for key in self._instances)

    def of_node(self, node_id: str) -> list[HostSample]:
        """Oldest first."""
        return self._nodes.read(node_id)

    def of_instance(self, node_id: str, instance_id: str) -> list[InstanceSample]:
        """Oldest first."""
        return self._instances.read((node_id, instance_id), instance_id=instance_id)


class _Ring(Generic[K, S]):
    """Readings of one kind by key. `outside`: fields that the key tells already."""

    def __init__(self, kind: type[S], outside: tuple[str, ...]) -> None:
        self._kind = kind
        self._names = [name for name in kind.__struct_fields__ if name not in outside]
        self._types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        self._series: dict[K, array[float]] = {}
        self._heard: dict[K, float] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._series

    def __iter__(self) -> Iterator[K]:
        return iter(self._series)

    def add(self, key: K, sample: S, now: float) -> None:
        values = self._series.setdefault(key, array("d"))
        values.extend(getattr(sample, name) for name in self._names)
        self._heard[key] = now
        width = len(self._names)
        excess = len(values) - width * self._length()
        if excess > 0:
            del values[:excess]

    def read(self, key: K, **outside: Any) -> list[S]:
        values = self._series.get(key, array("d"))
        width = len(self._names)
        rows = (values[start : start + width] for start in range(0, len(values), width))
        return [self._kind(**outside, **self._fields(row)) for row in rows]

    def sweep(self, before: float) -> None:
        for key in [key for key, heard in self._heard.items() if heard < before]:
            del self._series[key]
            del self._heard[key]

    def _fields(self, row: "array[float]") -> dict[str, float]:
        return {
            name: int(value) if self._types[name] is int else value
            for name, value in zip(self._names, row, strict=True)
        }

    def _length(self) -> int:
        return max(SHORTEST, min(LONGEST, MAX_READINGS // len(self._series)))
