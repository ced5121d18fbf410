"""`python -m tests.bench.agent`: what the agent costs a node that has ten running instances and nothing else to do.

A real engine, a real coordinator, a real agent. It prints {"rss_mib", "cpu_pct"}: resident memory at the end, and the share of one
core over a minute (`--seconds` for another time), both as the kernel counts them.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tests.bench.running import one_node, until_running
from tests.hosts import images

INSTANCES = 10
SETTLE_SECONDS = 20.0
"""Reports acknowledged, first metrics sent, first full look at the engine done."""
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kib) / 1024


def measure(seconds: float) -> dict[str, float]:
    with one_node() as stack:
        until_running(stack, stack.api.create("idle", images.BUSYBOX, INSTANCES).id)
        pid = stack.agents[0].pid
        time.sleep(SETTLE_SECONDS)
        used, began = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_seconds(pid) - used) / (time.monotonic() - began)
        return {"rss_mib": round(rss_mib(pid), 1), "cpu_pct": round(100 * share, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.agent")
    parser.add_argument("--seconds", type=float, default=60.0)
    json.dump(measure(parser.parse_args().seconds), sys.stdout)
    print()


if __name__ == "__main__":
    main()
