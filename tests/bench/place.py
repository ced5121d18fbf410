"""`python -m tests.bench.place`: pure `place` of 10,000 instances on 1,000 nodes, median of five runs, in processor time: it is one
thread that waits for nothing, and what else the machine does is not its merit or fault.

The fleet is as mixed as a real one, since a thousand equal nodes and one container would flatter any algorithm: nodes of four
sizes in three zones on two platforms, some of them cordoned; 1,250 containers of 1 to 15 replicas with different demands, one in
ten each packed, spread over zones, constrained, with a host port; and some find no room and are explained.
"""

import json
import statistics
import sys
import time

from coordinator.core.place import place
from coordinator.core.room import Ask, Demand, NodeView, Pending

NODES = 1_000
INSTANCES = 10_000
RUNS = 5
GIB = 2**30


def fleet() -> list[NodeView]:
    return [
        NodeView(
            node_id=f"node_{number:05}",
            hostname=f"host-{number}",
            platform="linux/arm64" if number % 10 == 9 else "linux/amd64",
            labels={"zone": "abc"[number % 3], "disk": "ssd" if number % 2 else "hdd"},
            availability="cordoned" if number % 50 == 7 else "active",
            cpu_millis=2_000 * (1 + number % 4),
            memory_bytes=4 * GIB * (1 + number % 4),
            disk_free=100 * GIB,
        )
        for number in range(NODES)
    ]


def demand(number: int) -> Demand:
    kind = number % 40
    return Demand(
        container_id=f"ctr_{number:05}",
        cpu_millis=(0, 50, 100, 250, 500)[number % 5],
        memory_bytes=(0, 64, 128, 256, 512, 1024)[number % 6] * 2**20 if kind != 5 else 64 * GIB,
        ports=frozenset({(8000 + number, "tcp")}) if kind in (9, 19, 29, 39) else frozenset(),
        constraints=("disk==ssd",) if kind in (7, 17, 27, 37) else (),
        platform="linux/amd64" if kind % 3 else None,
        max_per_node=2 if kind in (3, 13) else None,
        spread="zone" if kind in (1, 11, 21, 31) else None,
        pack=kind in (2, 12, 22, 32),
    )


def wishes() -> list[Pending]:
    asked: list[Pending] = []
    number = 0
    while len(asked) < INSTANCES:
        ask = Ask(demand(number))
        for slot in range(min(1 + number % 15, INSTANCES - len(asked))):
            asked.append(Pending(f"inst_{len(asked):06}", slot, ask))
        number += 1
    return asked


def main() -> None:
    nodes, pending = fleet(), wishes()
    seconds = []
    for _ in range(RUNS):
        began = time.process_time()
        placement = place(nodes, (), pending)
        seconds.append(time.process_time() - began)
        assert placement.unplaced
        assert len(placement.bound) + len(placement.unplaced) == INSTANCES
    figures = {
        "per_second": round(INSTANCES / statistics.median(seconds)),
        "placed": len(placement.bound),
        "unplaced": len(placement.unplaced),
    }
    json.dump(figures, sys.stdout)
    print()


if __name__ == "__main__":
    main()
