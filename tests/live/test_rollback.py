"""Releases that do not hold: back by themselves, while the old release serves every single request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from tests.hosts import images
from tests.hosts.api import Container
from tests.hosts.registry import Registry
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import web

pytestmark = pytest.mark.live


@dataclass
class Visitor:
    """Asks each of these instances again and again, and notes what it was not pleased with."""

    urls: list[str]
    expected: str
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, container: Container, expected: str) -> Visitor:
        ports = [port for one in container.instances for port in one.ports]
        return cls([f"http://{port.address}:{port.host_port}/" for port in ports], expected)

    def visit(self, left: threading.Event) -> None:
        with httpx.Client(trust_env=False, timeout=5) as client:
            while not left.wait(0.02):
                for url in self.urls:
                    self._ask(client, url)

    def _ask(self, client: httpx.Client, url: str) -> None:
        try:
            answer = client.get(url)
        except httpx.TransportError as error:
            self.failures.append(f"{url}: {error!r}")
            return
        if (answer.status_code, answer.text) != (200, self.expected):
            self.failures.append(f"{url}: {answer.status_code} {answer.text!r}")
        self.answered += 1


@contextmanager
def visited(container: Container, expected: str) -> Iterator[Visitor]:
    visitor, left = Visitor.of(container, expected), threading.Event()
    thread = threading.Thread(target=visitor.visit, args=(left,))
    thread.start()
    try:
        yield visitor
    finally:
        left.set()
        thread.join(20)


@pytest.mark.parametrize("kind", ["sick", "crashing", "missing image"])
def test_a_release_that_does_not_hold_goes_back_while_the_old_one_serves(
    stack: Stack, open_registry: Registry, kind: str
) -> None:
    missing = f"{open_registry.address}/team/missing:1"
    image = {"sick": images.WEB_BAD, "crashing": images.CRASH, "missing image": missing}[kind]
    container = stack.api.create("web", images.WEB_1, 3, **web())
    serving = waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    with visited(serving, "1\n") as visitor:
        deployment = stack.api.deploy(container.id, image=image)
        ended = waiting.ended(stack, deployment, "rolled_back")
        waiting.running(stack, container.id, 3)
        asked = visitor.answered
        waiting.until(lambda: visitor.answered, lambda count: count > asked, within=5, saying="it still answers")
    assert visitor.failures == []
    assert visitor.answered >= 3
    assert ended.error
    assert any("back" in event.message for event in ended.events), ended.events
    assert witness.sole(stack, container.id, 3) == before, "the old release was touched"
    waiting.until(
        lambda: witness.seen(stack, container.id),
        lambda left: set(left) == before,
        within=20,
        saying="nothing is left of it",
    )
    assert stack.api.deployments(container.id)[0]["status"] == "rolled_back"


def test_a_first_release_that_is_sick_fails_and_says_why(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_BAD, 2, **web())
    deployment = stack.api.deployments(container.id)[0]["id"]
    ended = waiting.ended(stack, deployment, "failed")
    assert ended.error
    seen = waiting.status(stack, container.id, "error")
    assert seen.reason is not None
    fixed = stack.api.deploy(container.id, image=images.WEB_1)
    waiting.ended(stack, fixed, "succeeded")
    waiting.running(stack, container.id, 2)


def test_a_newer_deployment_supersedes_the_one_under_way(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    first = stack.api.deploy(container.id, image=images.WEB_BAD)
    waiting.until(
        lambda: {one.image for one in witness.running(stack, container.id)},
        lambda running: images.WEB_BAD in running,
        within=20,
        saying="the first has begun",
    )
    second = stack.api.deploy(container.id, image=images.WEB_2)
    waiting.ended(stack, second, "succeeded")
    assert stack.api.deployment(first).status == "cancelled"
    waiting.running(stack, container.id, 3)
    assert {one.image for one in witness.sole(stack, container.id, 3)} == {images.WEB_2}


def test_a_cancelled_deployment_goes_back(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    check = {"path": "/never", "interval": 1, "timeout": 1, "retries": 100, "startPeriod": 60}
    stack.api.update(container.id, healthCheck=check)
    deployment = stack.api.deploy(container.id, image=images.WEB_2)
    waiting.until(
        lambda: {one.image for one in witness.running(stack, container.id)},
        lambda running: images.WEB_2 in running,
        within=20,
        saying="it has begun",
    )
    stack.api.call("container.cancelDeployment", deploymentId=deployment)
    waiting.ended(stack, deployment, "cancelled", within=20)
    waiting.running(stack, container.id, 3)
    assert witness.sole(stack, container.id, 3) == before


def test_a_rollback_by_hand_returns_to_the_release_before(stack: Stack) -> None:
    container = stack.api.create("web", images.WEB_1, 2, **web())
    waiting.running(stack, container.id, 2)
    waiting.ended(stack, stack.api.deployments(container.id)[0]["id"], "succeeded")
    waiting.ended(stack, stack.api.deploy(container.id, image=images.WEB_2), "succeeded")
    back = stack.api.call("container.rollback", containerId=container.id, reason="as it was")["id"]
    waiting.ended(stack, back, "succeeded")
    waiting.running(stack, container.id, 2)
    assert {(one.image, one.revision) for one in witness.sole(stack, container.id, 2)} == {(images.WEB_1, "1")}
