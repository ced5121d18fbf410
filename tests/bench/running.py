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

GIVE_UP_SECONDS = 60
POLL_SECONDS = 0.02


@contextmanager
def one_node() -> Iterator[Stack]:
    with Lab(hosts=1, name="bench", images=[images.busybox_tar()]) as lab, Stack(lab) as stack:
        yield stack


def until_running(stack: Stack, container_id: str) -> float:
    """When it was seen, by the monotonic clock."""
    address = urlsplit(stack.coordinator.url)
    # By hand and in one request: a client that polls takes its time from the engine on a machine with few cores.
    asking = http.client.HTTPConnection(address.hostname or "", address.port)
    try:
        asking.request(
            "GET",
            f"/api/container.one?containerId={container_id}&waitFor=running&timeout={GIVE_UP_SECONDS}",
            headers={"Authorization": f"Bearer {stack.coordinator.token}"},
        )
        found = json.loads(asking.getresponse().read())["result"]["data"]
    finally:
        asking.close()
    assert found["status"] == "running", f"not running after {GIVE_UP_SECONDS} s: {found['reason']}"
    return time.monotonic()


def remove(stack: Stack, container_id: str) -> None:
    """And wait until neither the coordinator nor the engine has anything of it."""
    stack.api.remove(container_id)
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not stack.api.gone(container_id) or ours(stack.hosts[0]):
        assert time.monotonic() < deadline, f"not gone after {GIVE_UP_SECONDS} s"
        time.sleep(POLL_SECONDS)
