"""`python -m tests.bench.api`: what a read costs beyond HTTP itself, with 32 keep-alive connections over loopback.

`container.one` and a `container.all` of 50 rows, authenticated, against the floor: a Litestar handler under the same server that
returns the bytes of that `container.one` with no auth and no database. One process each, measured in turns, medians of the turns.
It prints {"one_rps", "all_rps", "floor_rps", "ratio_one", "p99_ms"} on SQLite, and the same on PostgreSQL under "postgresql".
Limits are off: they are what would be measured otherwise.

The load is made by hand on sockets, in this process: a client library would use more of the machine than what it measures.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn
import uvloop
from litestar import Litestar, Response, get

from tests.hosts.postgres import Postgres

CONNECTIONS = 32
CONTAINERS = 50
TURNS = 5
SECONDS = 2.0
START_SECONDS = 30.0


@dataclass
class Turn:
    """What one turn of load saw. `waits`: seconds from request to last byte."""

    waits: list[float] = field(default_factory=list)
    errors: int = 0


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it was answered. Answers have a Content-Length and arrive in order."""

    def __init__(self, request: bytes, turn: Turn) -> None:
        self._request = request
        self._turn = turn
        self._buffer = b""
        self._missing = 0
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are registered nowhere
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            self._turn.errors += not head.startswith(b"HTTP/1.1 200")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._missing, self._buffer = length - len(rest), b""
        if not self._missing:
            self._turn.waits.append(time.perf_counter() - self._asked)
            self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)


async def load(port: int, path: str, token: str, seconds: float) -> Turn:
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    turn = Turn()
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(request, turn), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(seconds)
    for transport, _ in made:
        transport.abort()
    return turn


@contextmanager
def process(command: list[str], env: dict[str, str], port: int) -> Iterator[None]:
    """A server that answers on `port`, for as long as the block runs."""
    running = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port):
            assert running.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not answer"
            time.sleep(0.05)
        yield
    finally:
        running.terminate()
        running.wait(15)


def answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=START_SECONDS)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def coordinator(database_url: str | None) -> Iterator[tuple[int, str]]:
    """Its port and the admin's token."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        env = {"ARGOSY_BIND": f"127.0.0.1:{port}", "ARGOSY_DATA_DIR": directory, "ARGOSY_LOG_LEVEL": "warning"}
        env |= {"ARGOSY_RATE_READS": "0", "ARGOSY_RATE_WRITES": "0"}
        if database_url is not None:
            env["ARGOSY_DATABASE_URL"] = database_url
        with process([sys.executable, "-m", "coordinator"], env, port):
            yield port, (Path(directory) / "admin-token").read_text().strip()


def seed(port: int, token: str) -> tuple[str, str]:
    """Paths of the two reads, over as many containers as a page of the list has."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", headers=headers) as client:

        def ask(name: str, /, **data: Any) -> Any:
            answer = client.post(f"/{name}", json=data)
            assert answer.is_success, answer.text
            return answer.json()["result"]["data"]

        organization_id = ask("organization.all")[0]["id"]
        cluster_id = ask("cluster.all", organizationId=organization_id)[0]["id"]
        project_id = ask("project.all", organizationId=organization_id)[0]["id"]
        for number in range(CONTAINERS):
            made = ask(
                "container.create",
                projectId=project_id,
                clusterId=cluster_id,
                name=f"web-{number}",
                image="web:1",
                port=8080,
                env=[{"key": "NODE_ENV", "value": "production"}, {"key": "TOKEN", "value": "s", "secret": True}],
            )
        one = f"/api/container.one?containerId={made['id']}"
        return one, f"/api/container.all?projectId={project_id}&limit={CONTAINERS}"


def floor(port: int, body: bytes) -> None:
    """The server that does nothing: same server, same settings, same bytes."""

    @get("/api/container.one")
    async def answer() -> Response[bytes]:
        return Response(body, media_type="application/json")

    app = Litestar([answer], openapi_config=None, logging_config=None)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False)


def measure(database_url: str | None, turns: int, seconds: float) -> dict[str, float]:
    with coordinator(database_url) as (port, token), tempfile.NamedTemporaryFile() as body:
        one, listed = seed(port, token)
        answer = httpx.get(f"http://127.0.0.1:{port}{one}", headers={"Authorization": f"Bearer {token}"})
        Path(body.name).write_bytes(answer.content)
        floor_port = free_port()
        command = [sys.executable, "-m", "tests.bench.api", "--floor", str(floor_port), "--body", body.name]
        rates: dict[str, list[float]] = {"one": [], "all": [], "floor": []}
        waits: list[float] = []
        with process(command, {}, floor_port):
            targets = {"floor": (floor_port, "/api/container.one"), "one": (port, one), "all": (port, listed)}
            for number in range(turns + 1):
                for name, (at, path) in targets.items():
                    turn = uvloop.run(load(at, path, token, seconds))
                    assert not turn.errors, f"{name}: {turn.errors} of {len(turn.waits)} failed"
                    if number:  # the first turn pays for what stays
                        rates[name].append(len(turn.waits) / seconds)
                        waits += turn.waits if name == "one" else []
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "one_rps": round(medians["one"]),
        "all_rps": round(medians["all"]),
        "floor_rps": round(medians["floor"]),
        "ratio_one": round(medians["one"] / medians["floor"], 3),
        "p99_ms": round(statistics.quantiles(waits, n=100)[98] * 1000, 2),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.api")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--floor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--body", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.floor:
        floor(given.floor, given.body.read_bytes())
        return
    found: dict[str, Any] = measure(None, given.turns, given.seconds)
    with Postgres() as server:
        found["postgresql"] = measure(server.create_database("bench"), given.turns, given.seconds)
    json.dump(found, sys.stdout)
    print()


if __name__ == "__main__":
    main()
