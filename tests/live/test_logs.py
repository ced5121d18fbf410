"""Logs of all replicas: merged by time, cut by tail, since and until, followed as events, and harmless when they are a flood."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.hosts import images
from tests.hosts.api import Container, Node
from tests.hosts.engines import Host
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import plain, web

pytestmark = pytest.mark.live

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


@pytest.fixture
def ticking(stack: Stack) -> Container:
    """Three replicas on three hosts, each of which writes twenty lines a second."""
    container = stack.api.create("tick", images.TICK, 3, **plain())
    found = waiting.running(stack, container.id, 3)
    waiting.until(
        lambda: stack.api.logs(container.id, tail=1000),
        lambda lines: len({line["instanceId"] for line in lines}) == 3 and len(lines) > 60,
        within=15,
        saying="each replica has written some lines",
    )
    return found


def moment(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["ts"])


# --- reading what there is


def test_lines_of_all_replicas_are_merged_by_time(stack: Stack, ticking: Container) -> None:
    lines = stack.api.logs(ticking.id, tail=60)
    assert len(lines) == 60
    assert [moment(line) for line in lines] == sorted(moment(line) for line in lines)
    assert {line["instanceId"] for line in lines} == {one.id for one in ticking.instances}
    assert {line["nodeId"] for line in lines} == set(stack.node_ids.values())
    assert {line["stream"] for line in lines} == {"stdout", "stderr"}
    assert all(line["line"].startswith("tick " if line["stream"] == "stdout" else "tock ") for line in lines)


def test_lines_are_those_that_the_engine_has(stack: Stack, ticking: Container) -> None:
    one = next(iter(witness.running(stack, ticking.id)))
    raw = stack.lab.host(one.host).docker().api.logs(one.engine_id, stderr=False).decode().splitlines()
    stack.api.stop(ticking.id)
    waiting.status(stack, ticking.id, "stopped")
    lines = stack.api.logs(ticking.id, tail=5000, instanceId=one.instance)
    told = [line["line"] for line in lines if line["stream"] == "stdout"]
    assert told[: len(raw)] == raw
    assert told == [f"tick {number}" for number in range(1, len(told) + 1)], "no line is missing or told twice"


def test_one_instance_and_a_search(stack: Stack, ticking: Container) -> None:
    chosen = ticking.instances[1].id
    lines = stack.api.logs(ticking.id, tail=10, instanceId=chosen)
    assert len(lines) == 10
    assert {line["instanceId"] for line in lines} == {chosen}
    found = stack.api.logs(ticking.id, tail=1000, search="tick 3")
    assert found
    assert all("tick 3" in line["line"] for line in found)


def test_since_and_until_cut_by_time(stack: Stack, ticking: Container) -> None:
    lines = stack.api.logs(ticking.id, tail=60)
    first, last = moment(lines[20]), moment(lines[40])
    cut = stack.api.logs(ticking.id, tail=1000, since=first.isoformat(), until=last.isoformat())
    assert cut
    assert all(first <= moment(line) <= last for line in cut)
    texts = {(line["instanceId"], line["line"]) for line in cut}
    assert {(line["instanceId"], line["line"]) for line in lines[21:40]} <= texts


# --- following


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Both framings; lines that keep the connection alive are not events."""
    for line in response.iter_lines():
        text = line.removeprefix("data: ")
        if text.startswith("{"):
            yield json.loads(text)


@pytest.mark.parametrize("accept", [SSE, NDJSON])
def test_following_tells_old_and_new_lines_of_all_replicas_once(stack: Stack, ticking: Container, accept: str) -> None:
    begun = datetime.now(UTC)
    seen: list[dict[str, Any]] = []
    with stack.api.stream("container.logs", accept, containerId=ticking.id, follow="true", tail=100) as response:
        assert response.headers["content-type"].startswith(accept)
        for event in events(response):
            seen.append(event)
            if len([line for line in seen if moment(line) > begun]) > 60:
                break
    assert len({line["instanceId"] for line in seen}) == 3
    assert sum(moment(line) < begun for line in seen) >= 50, (
        "the tail comes first; a few new lines may count as part of it"
    )
    keys = [(line["instanceId"], line["line"]) for line in seen]
    assert len(keys) == len(set(keys)), "a line was told twice"
    for one in ticking.instances:
        numbers = [
            int(line["line"][5:]) for line in seen if line["instanceId"] == one.id and line["stream"] == "stdout"
        ]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a line is missing"


def test_following_goes_on_with_the_next_instance(stack: Stack, ticking: Container) -> None:
    """A replica that comes into being later is followed as well."""
    before = {one.id for one in ticking.instances}
    with stack.api.stream("container.logs", NDJSON, containerId=ticking.id, follow="true", tail=1) as response:
        stack.api.scale(ticking.id, 4)
        deadline = time.monotonic() + 20
        for event in events(response):
            if event.get("instanceId") not in {*before, None}:
                return
            assert time.monotonic() < deadline, "the fourth replica's lines never came"
    raise AssertionError("the stream ended")


# --- a flood


def flooding(stack: Stack) -> Container:
    """As fast as it can with half a processor: many times what anybody reads."""
    container = stack.api.create("flood", images.FLOOD, 1, **plain(resources={"cpuLimit": "500m"}))
    return waiting.running(stack, container.id, 1)


def bytes_sent(host: Host) -> int:
    """By its network card, since it booted."""
    return int(host.run(["awk", '$1 == "eth0:" {print $10}', "/proc/net/dev"]).stdout)


def test_a_reader_that_leaves_ends_the_traffic(stack: Stack) -> None:
    flood = flooding(stack)
    host = stack.host_of(flood.instances[0].node_id)
    before = bytes_sent(host)
    with stack.api.stream("container.logs", NDJSON, containerId=flood.id, follow="true") as response:
        for number, _ in enumerate(events(response)):
            if number > 5000:
                break
    sent = [bytes_sent(host)]
    assert sent[0] - before > 10_000, "compressed, 5000 lines are more than this"

    def rate() -> int:
        sent.append(bytes_sent(host))
        return sent[-1] - sent[-2]

    waiting.until(rate, lambda size: size < 5_000, within=15, every=1, saying="a second has heartbeats only")


class Follower(threading.Thread):
    """Reads a flood as fast as it comes, or after its first line not at all."""

    def __init__(self, stack: Stack, container_id: str, *, reads: bool) -> None:
        super().__init__(daemon=True)
        self._stack, self._container_id, self._reads = stack, container_id, reads
        self._left = threading.Event()
        self.lines = 0
        self.dropped = 0
        self.first = threading.Event()

    def run(self) -> None:
        fields = {"containerId": self._container_id, "follow": "true", "tail": 10}
        with self._stack.api.stream("container.logs", NDJSON, **fields) as response:
            for event in events(response):
                self.lines += "line" in event
                self.dropped += event.get("dropped", 0)
                self.first.set()
                if self._left.is_set() or (not self._reads and self._left.wait()):
                    return

    def leave(self) -> None:
        self._left.set()
        self.join(20)
        assert not self.is_alive()


@contextmanager
def two_followers(stack: Stack, container_id: str) -> Iterator[tuple[Follower, Follower]]:
    quick, idle = (Follower(stack, container_id, reads=reads) for reads in (True, False))
    quick.start()
    idle.start()
    try:
        assert quick.first.wait(20)
        assert idle.first.wait(20)
        yield quick, idle
    finally:
        quick.leave()
        idle.leave()


def test_a_flood_of_logs_delays_no_heartbeat_and_loses_no_report(stack: Stack) -> None:
    flood = flooding(stack)
    marks = {agent.name: agent.mark() for agent in stack.agents}
    words: set[str] = set()

    def nodes() -> list[Node]:
        found = stack.api.nodes()
        words.update(node.status for node in found)
        return found

    with two_followers(stack, flood.id) as (quick, idle):
        begun = time.monotonic()
        other = stack.api.create("other", images.WEB_1, 3, **web())
        waiting.running(stack, other.id, 3, within=15)
        for replicas in (6, 2, 5):
            nodes()
            stack.api.scale(other.id, replicas)
            waiting.running(stack, other.id, replicas, within=15)
            witness.sole(stack, other.id, replicas)
        victim = next(iter(witness.running(stack, other.id)))
        stack.lab.host(victim.host).docker().api.kill(victim.engine_id)
        waiting.until(
            lambda: {one.id: one.restarts for one in stack.api.one(other.id).instances}.get(victim.instance),
            lambda restarts: restarts == 1,
            within=15,
            saying="the crash is reported",
        )
        waiting.always(nodes, bool, lasting=max(0.0, 8 - (time.monotonic() - begun)), saying="longer than a lease")
        read = quick.lines
        waiting.until(lambda: quick.lines, lambda lines: lines > read + 1000, within=10, saying="the flood still flows")
    assert words == {"running"}, "a node was not heard of in time"
    assert all("disconnected" not in agent.said(marks[agent.name]) for agent in stack.agents)
    assert quick.lines > 5000
    assert quick.dropped > 0, "whoever reads a flood is told what was left out"
    assert idle.lines >= 1
