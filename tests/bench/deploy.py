"""`python -m tests.bench.deploy`: from `container.create` to `running`, against the least that Docker itself needs for it.

The floor is create, start and first inspect through the same engine's own API, on one kept connection. Both are measured in one
run, in turns, with the same image and network; the container is removed again before the next turn, off the clock.
"""

import json
import statistics
import time
from collections.abc import Callable

import httpx

from tests.hosts import images
from tests.hosts.engines import Host, Lab
from tests.hosts.stack import Stack, ours

RUNS = 20
WARM_UP = 3
POLL_SECONDS = 0.002
GIVE_UP_SECONDS = 30.0


def main() -> None:
    with Lab(hosts=1, name="bench", images=[images.busybox_tar()]) as lab, Stack(lab) as stack:
        floor, argosy = measure(stack)
    floor_ms, argosy_ms = statistics.median(floor) * 1000, statistics.median(argosy) * 1000
    figures = {
        "floor_ms": round(floor_ms, 1),
        "argosy_ms": round(argosy_ms, 1),
        "ratio": round(argosy_ms / floor_ms, 3),
        "added_ms": round(argosy_ms - floor_ms, 1),
    }
    print(json.dumps(figures))


def measure(stack: Stack) -> tuple[list[float], list[float]]:
    """Seconds of each counted run."""
    host = stack.hosts[0]
    home = {"projectId": stack.api.project()["id"], "clusterId": stack.api.cluster()["id"]}
    floor: list[float] = []
    argosy: list[float] = []
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(host.socket)), base_url="http://engine", timeout=30
    ) as engine:
        for turn in range(WARM_UP + RUNS):
            bare = _bare(engine)
            full = _full(stack, home, f"bench-{turn}")
            if turn >= WARM_UP:
                floor.append(bare)
                argosy.append(full)
    return floor, argosy


def _bare(engine: httpx.Client) -> float:
    began = time.perf_counter()
    made = engine.post("/containers/create", json={"Image": images.GRACEFUL}).raise_for_status().json()["Id"]
    engine.post(f"/containers/{made}/start").raise_for_status()
    assert engine.get(f"/containers/{made}/json").raise_for_status().json()["State"]["Running"]
    took = time.perf_counter() - began
    engine.delete(f"/containers/{made}", params={"force": "1"}).raise_for_status()
    return took


def _full(stack: Stack, home: dict[str, str], name: str) -> float:
    api = stack.api
    began = time.perf_counter()
    made = api.call("container.create", **home, name=name, image=images.GRACEFUL)["id"]
    _until(lambda: api.get("container.one", containerId=made)["status"] == "running", name)
    took = time.perf_counter() - began
    api.remove(made)
    _until(lambda: api.gone(made) and _empty(stack.hosts[0]), name)
    return took


def _empty(host: Host) -> bool:
    return not ours(host)


def _until(done: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{name}: nothing after {GIVE_UP_SECONDS:g} s"
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
