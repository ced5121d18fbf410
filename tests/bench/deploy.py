"""`python -m tests.bench.deploy`: what Argosy adds to starting a container whose image is there.

`container.create` until the container's status is `running`, as a user sees it over the API; against the floor on the same engine:
create, start and first inspect through the Docker API itself. Twenty runs each, alternating, so that whatever else the machine
does hits both alike. Same image, same network mode, no health check. It prints medians: {"floor_ms", "argosy_ms", "ratio",
"added_ms"}.

The floor speaks HTTP over the engine's socket by hand. A client library would add its own time to the floor and flatter us.
"""

import argparse
import http.client
import json
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.running import one_node, remove, until_running
from tests.hosts import images
from tests.hosts.stack import Stack

RUNS = 20


class EngineConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: HTTP {answer.status}: {content[:300]!r}")
        return json.loads(content) if content else None


def floor_once(engine: EngineConnection) -> float:
    """Milliseconds to a container seen running."""
    began = time.perf_counter()
    made = engine.ask("POST", "/containers/create", {"Image": images.BUSYBOX})["Id"]
    engine.ask("POST", f"/containers/{made}/start")
    seen = engine.ask("GET", f"/containers/{made}/json")
    took = time.perf_counter() - began
    assert seen["State"]["Running"], "the floor must be a container that runs"
    engine.ask("DELETE", f"/containers/{made}?force=1&v=1")
    return took * 1000


def argosy_once(stack: Stack, home: dict[str, str], run: int) -> float:
    began = time.monotonic()
    made = stack.api.call("container.create", **home, name=f"deploy-{run}", image=images.BUSYBOX, stopGracePeriod=0)[
        "id"
    ]
    took = until_running(stack, made) - began
    remove(stack, made)
    return took * 1000


def measure(runs: int) -> dict[str, float]:
    with one_node() as stack:
        engine = EngineConnection(stack.hosts[0].socket)
        home = {"projectId": stack.api.project()["id"], "clusterId": stack.api.cluster()["id"]}
        floor_once(engine), argosy_once(stack, home, 0)  # the first of each pays for what stays
        floor, argosy = [], []
        for run in range(1, runs + 1):
            floor.append(floor_once(engine))
            argosy.append(argosy_once(stack, home, run))
        engine.close()
    low, high = statistics.median(floor), statistics.median(argosy)
    return {
        "floor_ms": round(low, 1),
        "argosy_ms": round(high, 1),
        "ratio": round(high / low, 3),
        "added_ms": round(high - low, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.deploy")
    parser.add_argument("--runs", type=int, default=RUNS)
    json.dump(measure(parser.parse_args().runs), sys.stdout)
    print()


if __name__ == "__main__":
    main()
