"""What a test left in an engine, removed: through the SDK, since the product is the thing under test."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

PREDEFINED = {"bridge", "host", "none", "docker_gwbridge", "ingress"}


def ping(path: Path) -> bool:
    """Does an engine answer on this socket? Without a client, whose set-up asks more than that."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(5)
        caller.connect(str(path))
        caller.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
        return b" 200 " in caller.recv(64)
    return False


def empty(client: Any) -> None:
    """Swarm membership first, since a swarm would replace what is removed; then containers, networks, volumes."""
    if client.info()["Swarm"]["LocalNodeState"] != "inactive":
        client.swarm.leave(force=True)
    api = client.api
    containers = [container["Id"] for container in api.containers(all=True)]
    if containers:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda container: _remove_container(api, container), containers))
    for network in api.networks():
        if network["Name"] not in PREDEFINED:
            with contextlib.suppress(NotFound):
                api.remove_network(network["Id"])
    for volume in api.volumes()["Volumes"] or []:
        with contextlib.suppress(NotFound):
            api.remove_volume(volume["Name"], force=True)


def _remove_container(api: Any, container: str) -> None:
    with contextlib.suppress(NotFound):
        api.remove_container(container, v=True, force=True)


def keep_images(client: Any, wanted: set[str]) -> set[str]:
    """Remove all others, and names that a test gave to these; which of them are there."""
    api = client.api
    found = set()
    for image in api.images(all=False):
        if image["Id"] in wanted:
            found.add(image["Id"])
            for reference in (image["RepoTags"] or []) + (image["RepoDigests"] or []):
                if not reference.startswith(("argosy-test/", "<none>")):
                    api.remove_image(reference)
        else:
            with contextlib.suppress(NotFound):
                api.remove_image(image["Id"], force=True)
    return found
