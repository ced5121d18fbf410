"""A client of the coordinator's API for tests and benchmarks, written from its documentation and not from its code.

The views hold only what tests look at, under the documented names; they share nothing with the product's own types, so that a
renamed or missing field is noticed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from msgspec import Struct

Json = dict[str, Any]
T = TypeVar("T")


class View(Struct, frozen=True, rename="camel"):
    """Fields without a default are promised by the API: an answer that lacks one fails to decode."""


class Reason(View, frozen=True):
    code: str
    message: str
    next_at: float | str | None = None


class Port(View, frozen=True):
    port: int
    host_port: int
    address: str
    protocol: str = "tcp"


class Instance(View, frozen=True):
    id: str
    node_id: str | None
    status: str
    health: str
    started_at: str | None
    restarts: int
    reason: Reason | None
    ports: list[Port]
    slot: int
    revision: int


class Container(View, frozen=True):
    id: str
    name: str
    status: str
    reason: Reason | None
    image: str
    replicas: int
    cluster_id: str
    env: list[Json]
    instances: list[Instance]

    def reasons(self) -> set[str]:
        """The codes of all that its instances say."""
        return {one.reason.code for one in self.instances if one.reason is not None}

    def healthy(self) -> list[Instance]:
        return [one for one in self.instances if (one.status, one.health) == ("running", "healthy")]


class Event(View, frozen=True):
    message: str


class Deployment(View, frozen=True):
    id: str
    status: str
    error: str | None
    events: list[Event]


class Node(View, frozen=True):
    id: str
    name: str
    ip: str
    status: str
    availability: str
    reason: Reason | None
    labels: dict[str, str]
    agent_version: str
    last_seen_at: str | None
    capacity: Json
    usage: Json | None


class ApiError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class Api:
    """One keep-alive connection pool; close it, or use it as a context manager. `answers` keeps the text of every answer when it
    is set to a list: for tests of what must never be in one."""

    def __init__(self, url: str, token: str | None, timeout: float = 15) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self.http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)
        self.answers: list[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    # --- the procedure door

    def get(self, procedure: str, **fields: Any) -> Any:
        return self._data(self.http.get(f"/api/{procedure}", params=fields))

    def call(self, procedure: str, method: str = "POST", **fields: Any) -> Any:
        return self._data(self.http.request(method, f"/api/{procedure}", json=fields))

    @contextmanager
    def stream(self, procedure: str, accept: str, **fields: Any) -> Iterator[httpx.Response]:
        """An answer that goes on; without a time limit between its parts of its own."""
        with self.http.stream("GET", f"/api/{procedure}", params=fields, headers={"Accept": accept}) as response:
            if response.status_code != 200:
                response.read()
                self._data(response)
            yield response

    def _data(self, response: httpx.Response) -> Any:
        if self.answers is not None:
            self.answers.append(response.text)
        if response.status_code == 204:
            return None
        body = response.json()
        if response.is_success:
            return body["result"]["data"]
        error = body["error"]
        assert error["httpStatus"] == response.status_code, body
        raise ApiError(response.status_code, error["code"], error["message"])

    # --- what tests do all the time

    def health(self) -> Json:
        found: Json = self.get("system.health")
        return found

    def organization(self) -> Json:
        found: Json = self.get("organization.all")[0]
        return found

    def project(self) -> Json:
        found: Json = self.get("project.all", organizationId=self.organization()["id"])[0]
        return found

    def cluster(self) -> Json:
        found: Json = self.get("cluster.all", organizationId=self.organization()["id"])[0]
        return found

    def create(self, name: str, image: str, replicas: int = 1, **declared: Any) -> Container:
        """In the default project and cluster."""
        home = {"projectId": self.project()["id"], "clusterId": self.cluster()["id"]}
        created = self.call("container.create", **home, name=name, image=image, replicas=replicas, **declared)
        return msgspec.convert(created, Container)

    def one(self, container_id: str) -> Container:
        return msgspec.convert(self.get("container.one", containerId=container_id), Container)

    def containers(self) -> list[Json]:
        found: list[Json] = self.get("container.all", projectId=self.project()["id"], limit=200)
        return found

    def update(self, container_id: str, **declared: Any) -> Container:
        updated = self.call("container.update", "PATCH", containerId=container_id, **declared)
        return msgspec.convert(updated, Container)

    def deploy(self, container_id: str, **fields: Any) -> str:
        """The id of the deployment."""
        deployment: str = self.call("container.deploy", containerId=container_id, **fields)["deploymentId"]
        return deployment

    def deployment(self, deployment_id: str) -> Deployment:
        return msgspec.convert(self.get("container.deployment", deploymentId=deployment_id), Deployment)

    def deployments(self, container_id: str) -> list[Json]:
        """The newest first."""
        found: list[Json] = self.get("container.deployments", containerId=container_id)
        return found

    def scale(self, container_id: str, replicas: int) -> None:
        self.call("container.scale", containerId=container_id, replicas=replicas)

    def restart(self, container_id: str) -> None:
        self.call("container.restart", containerId=container_id)

    def stop(self, container_id: str) -> None:
        self.call("container.stop", containerId=container_id)

    def start(self, container_id: str) -> None:
        self.call("container.start", containerId=container_id)

    def remove(self, container_id: str) -> None:
        self.call("container.remove", "DELETE", containerId=container_id)

    def gone(self, container_id: str) -> bool:
        try:
            self.one(container_id)
        except ApiError as error:
            if error.status != 404:
                raise
            return True
        return False

    def nodes(self) -> list[Node]:
        return msgspec.convert(self.get("cluster.nodes", clusterId=self.cluster()["id"]), list[Node])

    def join_token(self, **fields: Any) -> str:
        token: str = self.call("cluster.joinToken", clusterId=self.cluster()["id"], **fields)["token"]
        return token

    def on_node(self, verb: str, node_id: str) -> Node:
        """`verb`: cordon, uncordon or drain."""
        changed = self.call(f"cluster.{verb}Node", clusterId=self.cluster()["id"], nodeId=node_id)
        return msgspec.convert(changed, Node)

    def remove_node(self, node_id: str, *, force: bool = False) -> None:
        self.call("cluster.removeNode", "DELETE", clusterId=self.cluster()["id"], nodeId=node_id, force=force)

    def logs(self, container_id: str, **fields: Any) -> list[Json]:
        """Without `follow`: the lines there are."""
        found: list[Json] = self.get("container.logs", containerId=container_id, **fields)
        return found
