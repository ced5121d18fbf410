"""One host with an engine, a coordinator and an agent, for benches; and the wait for a container, as a client waits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.hosts import images
from tests.hosts.engines import Lab
from tests.hosts.stack import Stack, ours

GIVE_UP_SECONDS = 60.0
POLL_SECONDS = 0.01


@contextmanager
def one_node() -> Iterator[Stack]:
    with Lab(hosts=1, name="bench", images=[images.busybox_tar()]) as lab, Stack(lab) as stack:
        yield stack


def until_running(stack: Stack, container_id: str) -> float:
    """When it was seen, by the monotonic clock."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        found = stack.api.get("container.one", containerId=container_id)
        now = time.monotonic()
        if found["status"] == "running":
            return now
        assert now < deadline, f"not running after {GIVE_UP_SECONDS:g} s: {found['reason']}"
        time.sleep(POLL_SECONDS)


def remove(stack: Stack, container_id: str) -> None:
    """And wait until neither the coordinator nor the engine has anything of it."""
    stack.api.remove(container_id)
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not stack.api.gone(container_id) or ours(stack.hosts[0]):
        assert time.monotonic() < deadline, f"not gone after {GIVE_UP_SECONDS:g} s"
        time.sleep(POLL_SECONDS)
