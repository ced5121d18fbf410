"""`python -m tests.bench.agent`: what an idle agent with ten running instances costs its node.

Resident memory is the median of a reading a second; processor time is what the kernel counted over the whole stretch.
"""

import json
import os
import statistics
import time
from pathlib import Path

from tests.hosts import images
from tests.hosts.engines import Lab
from tests.hosts.stack import Stack

INSTANCES = 10
SETTLE_SECONDS = 15.0
WATCH_SECONDS = 60
START_SECONDS = 60.0
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with Lab(hosts=1, name="bench", images=[images.busybox_tar()]) as lab, Stack(lab) as stack:
        made = stack.api.create("idle", images.BUSYBOX, INSTANCES)
        deadline = time.monotonic() + START_SECONDS
        while stack.api.one(made.id).status != "running":
            assert time.monotonic() < deadline, stack.api.one(made.id).reason
            time.sleep(0.2)
        time.sleep(SETTLE_SECONDS)
        print(json.dumps(watch(stack.agents[0].pid)))


def watch(pid: int) -> dict[str, float]:
    began, used = time.monotonic(), _cpu_seconds(pid)
    resident = []
    for _ in range(WATCH_SECONDS):
        time.sleep(1)
        resident.append(_resident_mib(pid))
    share = (_cpu_seconds(pid) - used) / (time.monotonic() - began)
    return {"rss_mib": round(statistics.median(resident), 1), "cpu_pct": round(100 * share, 2)}


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


if __name__ == "__main__":
    main()
