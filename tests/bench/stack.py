"""The whole of Argosy for a measurement: private Docker Engines, a coordinator on SQLite, an agent on each host.

Everything runs as it would in production, each part a process of its own with the settings a unit would give it, and the bench
talks to it as a user does: over the API, from outside.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.hosts import images
from tests.hosts.engines import Host, Lab
from tests.hosts.process import Spawned, wait_until

REPOSITORY = Path(__file__).parents[2]
PORT = 8420
START_SECONDS = 60.0


class ApiError(Exception):
    """A procedure answered with an error, or not at all."""


class Api:
    """Argosy's procedures over one kept connection."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def call(self, procedure: str, /, **fields: object) -> Any:
        answer = self._client.post(f"/api/{procedure}", json=fields)
        if answer.status_code >= 400:
            raise ApiError(f"{procedure}: HTTP {answer.status_code}: {answer.text[:500]}")
        return answer.json()["result"]["data"] if answer.content else None

    def close(self) -> None:
        self._client.close()


class Stack:
    """A context manager. `engine_images` are loaded on every host before anything starts."""

    def __init__(self, hosts: int = 1, engine_images: tuple[Path, ...] | None = None) -> None:
        self.lab = Lab(hosts=hosts, name="bench", images=engine_images or (images.busybox_tar(),))
        self.agents: list[Spawned] = []
        self.api: Api

    def __enter__(self) -> Self:
        self.lab.__enter__()
        try:
            self._start()
        except BaseException:
            self.lab.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if hasattr(self, "api"):
            self.api.close()
        self.lab.close()

    @property
    def url(self) -> str:
        return f"http://{self.lab.ci_address}:{PORT}"

    def create(self, name: str, **fields: object) -> str:
        """A new container of the first project, its id."""
        made = self.api.call(
            "container.create", projectId=self.project_id, clusterId=self.cluster_id, name=name, **fields
        )
        return str(made["id"])

    def remove(self, container_id: str) -> None:
        """Returns when its instances are gone from the engines."""
        self.api.call("container.remove", containerId=container_id)
        wait_until(
            lambda: not any(self._engine_containers(host, container_id) for host in self.lab.hosts),
            60,
            f"the removal of {container_id}",
        )

    def wait_running(self, container_id: str, timeout: float = 60.0, every: float = 0.01) -> float:
        """When it was seen running, by the monotonic clock."""
        until = time.monotonic() + timeout
        while True:
            seen = self.api.call("container.one", containerId=container_id)
            now = time.monotonic()
            if seen["status"] == "running":
                return now
            if now > until:
                raise ApiError(f"{container_id} is {seen['status']} after {timeout:g} s: {seen}")
            time.sleep(every)

    def _start(self) -> None:
        data = self.lab.ci.directory / "coordinator"
        data.mkdir()
        self.coordinator = self.lab.ci_spawn(
            [sys.executable, "-m", "coordinator"],
            env={
                "ARGOSY_BIND": f"{self.lab.ci_address}:{PORT}",
                "ARGOSY_DATA_DIR": str(data),
                "ARGOSY_LOG_LEVEL": "warning",
            },
            cwd=REPOSITORY,
        )
        self._wait_for(lambda: self._answers(data / "admin-token"), "the coordinator", self.lab.ci.directory)
        self.api = Api(self.url, (data / "admin-token").read_text().strip())
        self._find_defaults()
        for host in self.lab.hosts:
            self.agents.append(self._start_agent(host))
        self._wait_for(self._nodes_run, "the agents", self.lab.hosts[0].directory)

    def _answers(self, token_file: Path) -> bool:
        if self.coordinator.poll() is not None:
            raise ApiError(f"the coordinator ended with {self.coordinator.returncode}: {_tail(self.lab.ci.directory)}")
        try:
            return token_file.exists() and httpx.get(f"{self.url}/api/system.health").status_code == 200
        except httpx.TransportError:
            return False

    def _find_defaults(self) -> None:
        [organization] = self.api.call("organization.all")
        self.cluster_id = self.api.call("cluster.all", organizationId=organization["id"])[0]["id"]
        self.project_id = self.api.call("project.all", organizationId=organization["id"])[0]["id"]

    def _start_agent(self, host: Host) -> Spawned:
        token = self.api.call("cluster.joinToken", clusterId=self.cluster_id, role="worker")["token"]
        command = [sys.executable, "-m", "agent", "--coordinator", self.url, "--docker-host", host.docker_url]
        state = ["--state-dir", str(host.directory / "agent"), "--address", host.address]
        return host.spawn([*command, *state], env={"ARGOSY_JOIN": token}, cwd=REPOSITORY)

    def _nodes_run(self) -> bool:
        for host, agent in zip(self.lab.hosts, self.agents, strict=True):
            if agent.poll() is not None:
                raise ApiError(f"the agent of {host.name} ended with {agent.returncode}: {_tail(host.directory)}")
        nodes = self.api.call("cluster.nodes", clusterId=self.cluster_id)
        return [node["status"] for node in nodes] == ["running"] * len(self.lab.hosts)

    def _wait_for(self, holds: Callable[[], bool], what: str, directory: Path) -> None:
        wait_until(holds, START_SECONDS, f"{what} (log: {directory / 'log'})", every=0.05)

    @staticmethod
    def _engine_containers(host: Host, container_id: str) -> list[Any]:
        labels: Mapping[str, object] = {"label": f"argosy.container={container_id}"}
        found: list[Any] = host.docker().api.containers(all=True, filters=labels)
        return found


def _tail(directory: Path) -> str:
    log = directory / "log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
