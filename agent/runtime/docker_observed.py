"""What the Docker Engine tells of a container, as the agent's own words. Pure.

Only `inspect` tells everything that matters (exit code, times, process id, why it did not start); the engine's list does not.
"""

from typing import Any, Literal

from agent.core.observe import EngineState, Observed
from agent.runtime.base import LABEL_INSTANCE, LABEL_SPEC
from shared.kit.clock import from_iso
from shared.spec.instance import PortBinding

_STATES: dict[str, EngineState] = {
    "created": "created",
    "running": "running",
    "paused": "running",  # its process is there; pausing is what somebody does by hand
    "restarting": "exited",
    "exited": "exited",
    "removing": "dead",
    "dead": "dead",
}
_NEVER = "0001-01-01"
LISTED = ("Id", "State", "Labels", "ImageID")
"""What `listed` reads of the engine's list."""


def observed(inspected: dict[str, Any], address: str) -> Observed:
    state = inspected["State"]
    labels = inspected["Config"]["Labels"] or {}
    engine_state = _STATES.get(state["Status"], "dead")
    runs = engine_state == "running"
    ended = engine_state == "exited"
    return Observed(
        engine_id=inspected["Id"],
        instance_id=labels.get(LABEL_INSTANCE, ""),
        spec_hash=labels.get(LABEL_SPEC, ""),
        state=engine_state,
        exit_code=state["ExitCode"] if ended else None,
        out_of_memory=ended and bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        started_at=_time(state.get("StartedAt")),
        finished_at=_time(state.get("FinishedAt")) if ended else None,
        ports=_ports(inspected, address) if runs else [],
        image_id=inspected.get("Image") or "",
        pid=state.get("Pid") or 0 if runs else 0,
        ip=_ip(inspected) if runs else "",
    )


def listed(summary: dict[str, Any]) -> Observed:
    """From the engine's list, for when it cannot be inspected: no times, no exit code, no ports."""
    labels = summary.get("Labels") or {}
    return Observed(
        engine_id=summary["Id"],
        instance_id=labels.get(LABEL_INSTANCE, ""),
        spec_hash=labels.get(LABEL_SPEC, ""),
        state=_STATES.get(summary["State"], "dead"),
        image_id=summary.get("ImageID") or "",
    )


def _ports(inspected: dict[str, Any], address: str) -> list[PortBinding]:
    if inspected["HostConfig"].get("NetworkMode") == "host":
        declared = [_port(key) for key in inspected["HostConfig"].get("PortBindings") or {}]
        return sorted((PortBinding(port, port, address, protocol) for port, protocol in declared), key=_order)
    found = []
    for key, bindings in (inspected["NetworkSettings"].get("Ports") or {}).items():
        # One for IPv4 and one for IPv6, whose ephemeral ports may differ: the node's address is IPv4 unless there is none.
        chosen = min(bindings or [], key=lambda b: ":" in b.get("HostIp", ""), default=None)
        if chosen is not None and chosen.get("HostPort"):
            port, protocol = _port(key)
            found.append(PortBinding(port, int(chosen["HostPort"]), address, protocol))
    return sorted(found, key=_order)


def _order(binding: PortBinding) -> tuple[int, str]:
    return binding.port, binding.protocol


def _port(key: str) -> tuple[int, Literal["tcp", "udp"]]:
    number, _, protocol = key.partition("/")
    return int(number), "udp" if protocol == "udp" else "tcp"


def _ip(inspected: dict[str, Any]) -> str:
    networks = inspected["NetworkSettings"].get("Networks") or {}
    return next((str(network["IPAddress"]) for network in networks.values() if network.get("IPAddress")), "")


def _time(text: str | None) -> float | None:
    return from_iso(text) if text and not text.startswith(_NEVER) else None
