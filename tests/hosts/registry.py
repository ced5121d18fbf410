"""A registry of images for one test, with or without a password."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hosts import packages
from tests.hosts.engines import Host
from tests.hosts.errors import LabError, NotReadyError
from tests.hosts.process import SYSTEM_PATH, Spawned, sh, wait_until

# How to start a process: `lab.ci_spawn` puts the registry into a lab.
Spawn = Callable[..., "Spawned | subprocess.Popen[str]"]


class PushFailedError(LabError):
    pass


def spawn_here(command: list[str], **options: Any) -> subprocess.Popen[str]:
    env = {"PATH": SYSTEM_PATH, "HOME": os.environ.get("HOME", "/")}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env, text=True, start_new_session=True, **options)


@dataclass
class Registry:
    """Use as a context manager, or call `stop`. `.address` is the first part of its references."""

    address: str
    log: Path
    process: Spawned | subprocess.Popen[str]
    credentials: dict[str, str] | None

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)

    def push(self, host: Host, image: str, name: str, tag: str = "1") -> str:
        """Push an image that the host's engine has; the reference by digest (`address/name@sha256:…`)."""
        api = host.docker().api
        repository = f"{self.address}/{name}"
        api.tag(image, repository, tag)
        digest = None
        for line in api.push(repository, tag, stream=True, decode=True, auth_config=self.credentials):
            if "error" in line:
                raise PushFailedError(f"{repository}:{tag}: {line['error']}")
            digest = line.get("aux", {}).get("Digest", digest)
        api.remove_image(f"{repository}:{tag}")  # only the name: the image keeps its others
        return f"{repository}@{digest}"


def start(
    directory: Path,
    address: str,
    user: str | None = None,
    password: str | None = None,
    *,
    spawn: Spawn = spawn_here,
) -> Registry:
    """`address` is host:port, in the network that `spawn` starts processes in."""
    packages.require("docker-registry", "apache2-utils")
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    if user is not None and password is not None:
        (directory / "htpasswd").write_text(sh("htpasswd", "-n", "-i", "-B", user, stdin=password))
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))  # YAML includes JSON
    log = directory / "log"
    with log.open("w") as sink:
        process = spawn(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=sink, stderr=subprocess.STDOUT
        )
    credentials = {"username": user, "password": password} if user is not None and password is not None else None
    registry = Registry(address, log, process, credentials)
    _await_listening(registry)
    return registry


def _await_listening(registry: Registry) -> None:
    """By its log, since it may listen where this process cannot call."""

    def listening() -> bool:
        if registry.process.poll() is not None:
            raise NotReadyError(f"the registry ended: {registry.log.read_text()[-2000:]}")
        return "listening on" in registry.log.read_text()

    wait_until(listening, 20, f"the registry on {registry.address}")
