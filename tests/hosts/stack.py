"""Argosy itself on a lab: the coordinator in "ci", an agent on every host, each a real process started as a user starts it.

Everything they keep is in one folder of the lab's claim that this process can read: their data, and one log for each program,
which goes on over restarts. What fails here is the product, so it fails as an assertion and not as a `LabError`.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.hosts import sweeping
from tests.hosts.api import Api, ApiError, Node
from tests.hosts.engines import Host, Lab, Place
from tests.hosts.process import Spawned

PORT = 8420
START_SECONDS = 30.0
STOP_SECONDS = 10.0
"""What a program promises: it ends within this after SIGTERM."""


class Program:
    """A program that is started, killed and started again; its output is in one file."""

    def __init__(self, place: Place, name: str, log: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.place = place
        self.name = name
        self.log = log
        self.command = list(command)
        self.env = dict(env)
        self._process: Spawned | None = None

    def start(self, **more_env: str) -> None:
        assert not self.is_on, f"{self.name} runs already"
        with self.log.open("a") as sink:
            self._process = self.place.spawn(self.command, env={**self.env, **more_env}, stdout=sink)

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """As seen from the root namespace."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.real_pid

    @property
    def process(self) -> Spawned:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """SIGTERM; its exit status, or an assertion when it does not end in time."""
        self.process.terminate()
        return self.ended()

    def ended(self, within: float = STOP_SECONDS) -> int:
        """Its exit status once it ends by itself."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within:g} s\n{self.tail()}") from None

    def close(self) -> None:
        if self._process is not None:
            self._process.end(STOP_SECONDS)

    def said(self, since: int = 0) -> str:
        """From this many bytes on; `mark` gives the number."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[since:].decode(errors="replace")

    def mark(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def tail(self, lines: int = 40, since: int = 0) -> str:
        return "\n".join([f"--- {self.name}", *self.said(since).splitlines()[-lines:]])

    def records(self, since: int = 0) -> list[dict[str, Any]]:
        """Its structured lines."""
        return [json.loads(line) for line in self.said(since).splitlines() if line.startswith("{")]


class Coordinator(Program):
    def __init__(
        self, lab: Lab, directory: Path, database_url: str = "", *, name: str = "coordinator", port: int = PORT
    ) -> None:
        self.data = directory / name
        self.url = f"http://{lab.ci_address}:{port}"
        env = {"ARGOSY_BIND": f"{lab.ci_address}:{port}", "ARGOSY_DATA_DIR": str(self.data)}
        env |= dict.fromkeys(
            ("ARGOSY_RATE_READS", "ARGOSY_RATE_WRITES", "ARGOSY_RATE_STREAMS"), "1000000"
        )  # tests poll
        if database_url:
            env["ARGOSY_DATABASE_URL"] = database_url
        super().__init__(lab.ci, name, directory / f"{name}.log", ["argosy-coordinator"], env)

    def start(self, **more_env: str) -> None:
        super().start(**more_env)
        self.await_health()

    def await_health(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with Api(self.url, None, timeout=2) as api:
            while not _healthy(api):
                assert self.is_on, f"the coordinator ended with {self.process.returncode}\n{self.tail()}"
                assert time.monotonic() < deadline, f"no healthy coordinator in {START_SECONDS:g} s\n{self.tail()}"
                time.sleep(0.02)

    @property
    def token(self) -> str:
        return (self.data / "admin-token").read_text().strip()


class Agent(Program):
    def __init__(self, host: Host, url: str, directory: Path, name: str = "", labels: Iterable[str] = ()) -> None:
        name = name or host.name
        self.host = host
        self.state = directory / f"agent-{name}"
        command = [
            *("argosy-agent", "--coordinator", url, "--state-dir", str(self.state)),
            *("--docker-host", "unix:///run/docker.sock", "--address", host.address),
            *("--label", f"host={name}", *labels),
        ]
        super().__init__(host, f"agent-{name}", directory / f"agent-{name}.log", command, {})


class Stack:
    """Use as a context manager. `agents` are in the order of the lab's hosts."""

    def __init__(self, lab: Lab, database_url: str = "", hosts: Sequence[Host] | None = None) -> None:
        self.lab = lab
        self.hosts = list(lab.hosts if hosts is None else hosts)
        self.directory = lab.claim.directory / f"stack-{secrets.token_hex(2)}"
        self.directory.mkdir()
        self.coordinator = Coordinator(lab, self.directory, database_url)
        self.agents = [Agent(host, self.coordinator.url, self.directory) for host in self.hosts]
        self.others: list[Program] = []
        self._marks: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self.coordinator.start()
            self.api = Api(self.coordinator.url, self.coordinator.token)
            token = self.api.join_token(uses=max(1, len(self.agents)))
            for agent in self.agents:
                agent.start(ARGOSY_JOIN=token)
            self.await_nodes()
            self.node_ids = {node.labels["host"]: node.id for node in self.api.nodes()}
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Program.close, [*self.others, *self.agents]))
        self.coordinator.close()
        if hasattr(self, "api"):
            self.api.close()

    # --- who is who

    @property
    def programs(self) -> list[Program]:
        return [self.coordinator, *self.agents, *self.others]

    def agent(self, host: Host | str) -> Agent:
        name = host if isinstance(host, str) else host.name
        return next(agent for agent in self.agents if agent.host.name == name)

    def host_of(self, node_id: str | None) -> Host:
        name = next(name for name, known in self.node_ids.items() if known == node_id)
        return self.lab.host(name)

    def node(self, host: Host) -> Node:
        return next(node for node in self.api.nodes() if node.id == self.node_ids[host.name])

    # --- back to the beginning

    def await_nodes(self, within: float = 30) -> None:
        """Every agent's node is there and has nothing to complain about."""
        _await(self._nodes_ready, within, "nodes are not all running", lambda: self.logs(25))

    def _nodes_ready(self) -> tuple[bool, object]:
        nodes = self.api.nodes()
        wanted = {agent.host.name for agent in self.agents}
        return wanted == {node.labels.get("host") for node in nodes if node.status == "running"}, nodes

    def restore(self) -> None:
        """Everything on and connected, every container removed: by the product, which has to be able to."""
        self._mend()
        self._restart()
        for node in self.api.nodes():
            if node.availability != "active":
                self.api.on_node("uncordon", node.id)
        for container in self.api.containers():
            if container["status"] != "deleting":
                self.api.remove(container["id"])
        self.await_nodes()
        _await(self._empty, 45, "the nodes are not empty", lambda: self.logs(40))
        for host in self.hosts:
            sweeping.empty(host.docker())  # what the test itself has started

    def _restart(self) -> None:
        while self.others:
            self.others.pop().close()
        if not self.coordinator.is_on:
            self.coordinator.start()
        for agent in self.agents:
            if agent.is_on and '"link.down"' in agent.said(self._marks.get(agent.name, 0)):
                agent.terminate()  # its backoff has grown, and the next test is not to wait for it
            if not agent.is_on:
                agent.start()

    def _mend(self) -> None:
        self.lab.switch.clear_faults()
        for host in self.hosts:
            host.heal()
            if not host.is_on:
                host.power_on()
            elif not host.engine_is_on or host.engine_args != self.lab.engine_args:
                host.stop_engine()
                host.start_engine(self.lab.engine_args)

    def _empty(self) -> tuple[bool, object]:
        left = self.api.containers()
        held = {host.name: [each["Names"] for each in ours(host)] for host in self.hosts}
        return not left and not any(held.values()), (left, held)

    # --- what they said

    def mark(self) -> None:
        """From here on is what `logs` tells."""
        self._marks = {program.name: program.mark() for program in self.programs}

    def logs(self, lines: int = 120) -> str:
        return "\n".join(program.tail(lines, self._marks.get(program.name, 0)) for program in self.programs)


def ours(host: Host) -> list[dict[str, Any]]:
    """The engine's list of all engine containers that Argosy made there, whatever their state: by the docker SDK."""
    found: list[dict[str, Any]] = host.docker().api.containers(all=True, filters={"label": "argosy.instance"})
    return found


def _healthy(api: Api) -> bool:
    try:
        return bool(api.health()["status"] == "ok")
    except (httpx.TransportError, ApiError):
        return False


def _await(look: Callable[[], tuple[bool, object]], within: float, what: str, more: Callable[[], str]) -> None:
    deadline = time.monotonic() + within
    while True:
        done, seen = look()
        if done:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} after {within:g} s: {seen}\n{more()}")
        time.sleep(0.05)
