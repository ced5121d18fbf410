"""One host with an engine, a coordinator and an agent, for benches; and the wait for a container, as a client waits."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.hosts import images
from tests.hosts.engines import Lab
from tests.hosts.stack import Stack, ours

GIVE_UP_SECONDS = 60.0
POLL_SECONDS = 0.02


@contextmanager
def one_node() -> Iterator[Stack]:
    with Lab(hosts=1, name="bench", images=[images.busybox_tar()]) as lab, Stack(lab) as stack:
        yield stack


def until_running(stack: Stack, container_id: str) -> float:
    """When it was seen, by the monotonic clock."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    address = urlsplit(stack.coordinator.url)
    # By hand, and not too often: a client library's time for a poll is taken from the engine on a machine with few cores.
    asking = http.client.HTTPConnection(address.hostname or "", address.port)
    headers = {"Authorization": f"Bearer {stack.coordinator.token}"}
    try:
        while True:
            asking.request("GET", f"/api/container.one?containerId={container_id}", headers=headers)
            found = json.loads(asking.getresponse().read())["result"]["data"]
            now = time.monotonic()
            if found["status"] == "running":
                return now
            assert now < deadline, f"not running after {GIVE_UP_SECONDS:g} s: {found['reason']}"
            time.sleep(POLL_SECONDS)
    finally:
        asking.close()


def remove(stack: Stack, container_id: str) -> None:
    """And wait until neither the coordinator nor the engine has anything of it."""
    stack.api.remove(container_id)
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not stack.api.gone(container_id) or ours(stack.hosts[0]):
        assert time.monotonic() < deadline, f"not gone after {GIVE_UP_SECONDS:g} s"
        time.sleep(POLL_SECONDS)
