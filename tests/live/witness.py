"""What the engines themselves say, asked through the docker SDK: the product is not its own judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

from tests.hosts.engines import Host
from tests.hosts.stack import Stack, ours


@dataclass(frozen=True)
class Seen:
    """One engine container of Argosy's. Equal ids and start times: nobody touched it."""

    host: str
    engine_id: str
    name: str
    instance: str
    slot: str
    revision: str
    image: str
    state: str
    started_at: str
    exit_code: int


def seen(stack: Stack, container_id: str, hosts: Iterable[Host] | None = None) -> list[Seen]:
    """All of a container's, on every host that is on, or on these."""
    looked_at = [host for host in stack.hosts if host.engine_is_on] if hosts is None else hosts
    return [one for host in looked_at for one in _on(host, container_id)]


def running(stack: Stack, container_id: str, hosts: Iterable[Host] | None = None) -> set[Seen]:
    return {one for one in seen(stack, container_id, hosts) if one.state == "running"}


def spread(stack: Stack, container_id: str) -> dict[str, int]:
    """Host → how many of the container run there."""
    return dict(Counter(one.host for one in running(stack, container_id)))


def sole(stack: Stack, container_id: str, replicas: int) -> set[Seen]:
    """What runs, after checking that every slot runs exactly once."""
    found = running(stack, container_id)
    slots = sorted(int(one.slot) for one in found)
    assert slots == list(range(replicas)), f"slots {slots} run, of {replicas} declared: {found}"
    return found


def environment(host: Host, engine_id: str) -> dict[str, str]:
    """The variables an engine container was made with."""
    pairs = host.docker().api.inspect_container(engine_id)["Config"]["Env"]
    return dict(pair.partition("=")[::2] for pair in pairs)


def _on(host: Host, container_id: str) -> list[Seen]:
    found = []
    for each in ours(host):
        if each["Labels"]["argosy.container"] != container_id:
            continue
        try:
            found.append(_seen(host, host.docker().api.inspect_container(each["Id"])))
        except NotFound:
            continue  # removed since it was listed
    return found


def _seen(host: Host, inspected: dict[str, Any]) -> Seen:
    labels, state = inspected["Config"]["Labels"], inspected["State"]
    return Seen(
        host=host.name,
        engine_id=inspected["Id"],
        name=inspected["Name"].lstrip("/"),
        instance=labels["argosy.instance"],
        slot=labels["argosy.slot"],
        revision=labels["argosy.revision"],
        image=inspected["Config"]["Image"],
        state=state["Status"],
        started_at=state["StartedAt"],
        exit_code=state["ExitCode"],
    )
