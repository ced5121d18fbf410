"""Waiting for what a test expects, so that a failure says what was there instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

from tests.hosts.api import ApiError, Container, Deployment
from tests.hosts.stack import Stack

T = TypeVar("T")
PASSING = (httpx.TransportError,)
"""What an observation may fail with while a coordinator is away: seen as a value like any other, and waited over."""


def until(
    observe: Callable[[], T], holds: Callable[[T], object], *, within: float, saying: str, every: float = 0.05
) -> T:
    """The first observation that holds."""
    begun = time.monotonic()
    while True:
        seen: object
        try:
            value = observe()
            if holds(value):
                return value
            seen = value
        except PASSING as error:
            seen = error
        waited = time.monotonic() - begun
        if waited > within:
            raise AssertionError(f"not within {within:g} s: {saying}\nlast seen: {seen!r}")
        time.sleep(every)


def always(
    observe: Callable[[], T], holds: Callable[[T], object], *, lasting: float, saying: str, every: float = 0.1
) -> None:
    """It holds at every look for that long."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < lasting:
        value = observe()
        assert holds(value), f"after {waited:.1f} s no longer: {saying}\nseen: {value!r}"
        time.sleep(every)


def running(stack: Stack, container_id: str, replicas: int, within: float = 30) -> Container:
    """Every replica healthy, and nothing else of it left."""
    return until(
        lambda: stack.api.one(container_id),
        lambda seen: seen.status == "running" and len(seen.healthy()) == len(live(seen)) == replicas,
        within=within,
        saying=f"runs with {replicas} healthy instances and no others",
    )


def live(container: Container) -> list[str]:
    """Ids of the instances that are not over."""
    over = {"stopped", "failed", "rejected", "removed"}
    return [one.id for one in container.instances if one.status not in over]


def status(stack: Stack, container_id: str, word: str, within: float = 30) -> Container:
    return until(
        lambda: stack.api.one(container_id), lambda seen: seen.status == word, within=within, saying=f"is {word}"
    )


def explained(stack: Stack, container_id: str, code: str, within: float = 30) -> Container:
    """Some instance, or the container as a whole, gives this reason."""
    return until(
        lambda: stack.api.one(container_id),
        lambda seen: code in seen.reasons() or (seen.reason is not None and seen.reason.code == code),
        within=within,
        saying=f"the reason {code} is given",
    )


def ended(stack: Stack, deployment_id: str, word: str, within: float = 60) -> Deployment:
    """The deployment came to this end, and to no other."""
    seen = until(
        lambda: stack.api.deployment(deployment_id),
        lambda seen: seen.status not in ("pending", "queued", "building", "in_progress"),
        within=within,
        saying=f"the deployment is {word}",
    )
    assert seen.status == word, seen
    return seen


def removed(stack: Stack, container_id: str, within: float = 30) -> None:
    until(lambda: stack.api.gone(container_id), bool, within=within, saying="the container is gone")


def refusal(act: Callable[[], object]) -> ApiError:
    """The error that the API answers with."""
    try:
        answer = act()
    except ApiError as error:
        return error
    raise AssertionError(f"it was not refused, but answered with {answer!r}")
