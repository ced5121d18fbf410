"""Logs of a whole organisation on real engines: queried, streamed over reconnects, and drained."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.hosts import images
from tests.hosts.stack import Stack
from tests.live import waiting, witness
from tests.live.declared import plain

pytestmark = pytest.mark.live

COUNTED = [{"key": "INTERVAL", "value": "0.02"}]


class Sink(BaseHTTPRequestHandler):
    """Keeps the lines of every batch it is sent."""

    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.found.extend(json.loads(line) for line in body.decode().split("\n") if line)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Not into the test's output."""


@contextmanager
def sink(stack: Stack) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(url that the coordinator reaches, lines)."""
    server: Any = ThreadingHTTPServer((stack.lab.root_address, 0), Sink)
    server.found = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{stack.lab.root_address}:{server.server_address[1]}/in", server.found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def written(stack: Stack, container_id: str) -> dict[str, list[str]]:
    """instance → all lines its engine has, by the docker SDK."""
    found = {}
    for one in witness.running(stack, container_id):
        raw = stack.lab.host(one.host).docker().api.logs(one.engine_id, stdout=True, stderr=True)
        found[one.instance] = raw.decode().splitlines()
    return found


def test_query_sees_all_containers(stack: Stack) -> None:
    organization = stack.api.organization()["id"]
    first = stack.api.create("one", images.TICK, 2, **plain(env=COUNTED))
    second = stack.api.create("two", images.TICK, 1, **plain(env=COUNTED))
    for one in (first, second):
        waiting.running(stack, one.id, one.replicas)
    found = waiting.until(
        lambda: stack.api.get("log.query", organizationId=organization, limit=500),
        lambda lines: {line["containerId"] for line in lines} == {first.id, second.id} and len(lines) > 100,
        within=20,
        saying="lines of both containers",
    )
    assert [line["ts"] for line in found] == sorted(line["ts"] for line in found)
    assert len({line["instanceId"] for line in found}) == 3
    only = stack.api.get("log.query", organizationId=organization, containerId=second.id, search="tick")
    assert {line["containerId"] for line in only} == {second.id}
    assert all("tick" in line["line"] for line in only)


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, event) of Server-Sent Events."""
    identity = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            identity = line.removeprefix("id: ")
        elif line.startswith("data: "):
            yield identity, json.loads(line.removeprefix("data: "))


def test_a_stream_that_is_interrupted_again_and_again_tells_every_line_once(stack: Stack) -> None:
    organization = stack.api.organization()["id"]
    container = stack.api.create("tick", images.TICK, 3, **plain(env=COUNTED))
    waiting.running(stack, container.id, 3)
    got: list[dict[str, Any]] = []
    last = ""
    for leave_after in (1, 40, 7, 150, 3, 90, 200):
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        fields: dict[str, Any] = {"organizationId": organization, "tail": 10}
        with stack.api.http.stream("GET", "/api/log.stream", params=fields, headers=headers) as response:
            assert response.status_code == 200
            for number, (identity, event) in enumerate(events(response), 1):
                last = identity
                got.append(event)
                if number >= leave_after:
                    break
    lines = [event for event in got if event["stream"] != "argosy"]
    keys = [(line["instanceId"], line["line"]) for line in lines]
    assert len(keys) == len(set(keys)), "a line was told twice"
    for instance_id in {line["instanceId"] for line in lines}:
        for word, stream in (("tick", "stdout"), ("tock", "stderr")):
            numbers = [int(text.split()[1]) for who, text in keys if who == instance_id and text.startswith(word)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"a line of {stream} is missing"


def test_a_drain_gets_every_line_of_a_container_once(stack: Stack) -> None:
    organization = stack.api.organization()["id"]
    with sink(stack) as (url, found):
        made = stack.api.call("log.createDrain", organizationId=organization, name="sink", type="http", url=url)
        tested = stack.api.call("log.testDrain", drainId=made["id"])
        assert tested["ok"], tested
        container = stack.api.create("tick", images.TICK, 3, **plain(env=COUNTED))
        waiting.running(stack, container.id, 3)
        waiting.until(lambda: len(found), lambda count: count > 300, within=30, saying="lines arrive")
        stack.coordinator.terminate()  # an orderly restart costs no line and repeats none
        stack.coordinator.start()
        seen = len(found)
        waiting.until(lambda: len(found), lambda count: count > seen + 300, within=60, saying="lines arrive again")
        expected = written(stack, container.id)
        assert len(expected) == 3

        def drained() -> dict[str, list[str]]:
            return {
                name: [line["line"] for line in found if line["instanceId"] == name and line["stream"] != "argosy"]
                for name in expected
            }

        waiting.until(
            drained,
            lambda lines: all(set(expected[name]) <= set(lines[name]) for name in expected),
            within=20,
            saying="every line that the engines have",
        )
        for name, lines in drained().items():
            assert len(lines) == len(set(lines)), f"a line of {name} was delivered twice"
        status = stack.api.get("log.drains", organizationId=organization)[0]["status"]
        assert (status["state"], status["dropped"]) == ("delivering", 0)
        stack.api.call("log.removeDrain", "DELETE", drainId=made["id"])
