"""An assignment as the Docker Engine wants it told, and the labels by which its engine container is known again. Pure.

What is left out is left out on purpose. No `Init`: images with their own init (s6, systemd) refuse to run as anything but
process 1, so the engine's own default stands. No restart policy: the agent restarts, with backoff and a memory; an engine that
restarts too would hide it. No swap beyond the memory limit: a limit that pushes into swap is none.
"""

from typing import Any

from agent.runtime.base import (
    LABEL_CONTAINER,
    LABEL_INSTANCE,
    LABEL_NODE,
    LABEL_REVISION,
    LABEL_SLOT,
    LABEL_SPEC,
)
from shared.spec.image import registry_of
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec, InstanceVolume

LOG_DRIVER = "json-file"
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}


def names(assignment: Assignment) -> tuple[str, str]:
    """For people only, nothing is found by it: the short one, and one for when somebody else has that already."""
    stem = f"{assignment.container_name}-{assignment.slot}"
    return f"{stem}-{assignment.instance_id[-6:]}", f"{stem}-{assignment.instance_id}"


def labels(assignment: Assignment, node_id: str) -> dict[str, str]:
    spec = assignment.spec
    return {
        **(spec.labels if spec else {}),
        LABEL_NODE: node_id,
        LABEL_INSTANCE: assignment.instance_id,
        LABEL_CONTAINER: assignment.container_id,
        LABEL_SLOT: str(assignment.slot),
        LABEL_REVISION: str(assignment.revision),
        LABEL_SPEC: assignment.spec_hash,
    }


def engine_config(assignment: Assignment, secrets: InstanceSecrets, node_id: str, log_driver: str) -> dict[str, Any]:
    """The body of the engine's create call. `log_driver`: the engine's default, which stands unless it would let logs grow
    without end."""
    spec = assignment.spec
    assert spec is not None, "a tombstone is never created"
    config: dict[str, Any] = {
        "Image": spec.image,
        "Env": _environment(spec, secrets),
        "Labels": labels(assignment, node_id),
        "ExposedPorts": {_port_key(port.port, port.protocol): {} for port in spec.ports},
        "StopTimeout": spec.stop_grace_period,
        "HostConfig": _host_config(spec, assignment, node_id, log_driver),
    }
    if spec.command:
        config["Cmd"] = spec.command
    return config


def registry_auth(image: str, secrets: InstanceSecrets) -> dict[str, str]:
    """Empty when the image is pulled without credentials."""
    if not secrets.username:
        return {}
    registry = registry_of(image)
    address = "https://index.docker.io/v1/" if registry == "docker.io" else registry
    return {"username": secrets.username, "password": secrets.password, "serveraddress": address}


def pull_reference(image: str) -> dict[str, str]:
    """The engine pulls every tag of a name without one, so the usual default is spelled out."""
    last = image.rpartition("/")[2]
    return {"fromImage": image} if ":" in last or "@" in last else {"fromImage": image, "tag": "latest"}


def _environment(spec: InstanceSpec, secrets: InstanceSecrets) -> list[str]:
    merged = {var.key: var.value for var in spec.env} | secrets.env
    return [f"{key}={value}" for key, value in merged.items()]


def _host_config(spec: InstanceSpec, assignment: Assignment, node_id: str, log_driver: str) -> dict[str, Any]:
    host: dict[str, Any] = {
        "RestartPolicy": {"Name": "no"},
        "PortBindings": {
            _port_key(port.port, port.protocol): [{"HostIp": "", "HostPort": str(port.host_port or "")}]
            for port in spec.ports
        },
        "Mounts": [_mount(volume, assignment, node_id) for volume in spec.volumes],
    }
    if log_driver == LOG_DRIVER:
        host["LogConfig"] = {"Type": LOG_DRIVER, "Config": LOG_OPTIONS}
    if spec.cpu_millis is not None:
        host["NanoCpus"] = spec.cpu_millis * 1_000_000
    if spec.memory_bytes is not None:
        host["Memory"] = host["MemorySwap"] = spec.memory_bytes
    security = spec.security
    if security.privileged:
        host["Privileged"] = True
    for asked, name in (
        (security.host_network, "NetworkMode"),
        (security.host_pid, "PidMode"),
        (security.host_ipc, "IpcMode"),
    ):
        if asked:
            host[name] = "host"
    return host


def _mount(volume: InstanceVolume, assignment: Assignment, node_id: str) -> dict[str, Any]:
    """Not a `Binds` entry: that would make a missing host path as an empty directory owned by root."""
    mount: dict[str, Any] = {"Source": volume.source, "Target": volume.target, "ReadOnly": volume.read_only}
    if volume.host:
        return {**mount, "Type": "bind"}
    owner = {LABEL_NODE: node_id, LABEL_CONTAINER: assignment.container_id, LABEL_SLOT: str(assignment.slot)}
    return {**mount, "Type": "volume", "VolumeOptions": {"Labels": owner}}


def _port_key(port: int, protocol: str) -> str:
    return f"{port}/{protocol}"
