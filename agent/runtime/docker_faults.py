"""What the Docker Engine says when it fails, sorted into reason codes.

The engine's errors are prose: the same HTTP status stands for a full disk and for a typing mistake. The fragments below are
those of Docker 20.10 to 28 and of the registries behind it, tried in order: the first that occurs in the message decides, so
the narrow ones stand before the wide ones. What nothing here knows is taken as temporary: trying once more with backoff is
the smaller mistake.
"""

import re
from dataclasses import dataclass
from typing import Literal

from agent.core.faults import RuntimeFault
from shared.spec import reason

Doing = Literal["pull", "create", "start", "other"]

_MAX_MESSAGE = 500
_WRAPPERS = re.compile(
    r"^(?:failed to create (?:shim task|task for container)|OCI runtime create failed|runc create failed"
    r"|unable to start container process|container_linux\.go:\d+|starting container process caused|driver failed [^:]*): ?"
)
_ENDPOINT = re.compile(r"\([0-9a-f]{64}\)")


@dataclass(frozen=True)
class _Rule:
    code: str
    temporary: bool
    fragments: tuple[str, ...]

    def covers(self, message: str) -> bool:
        return any(fragment in message for fragment in self.fragments)


_ALWAYS = (
    _Rule(reason.DISK_FULL, True, ("no space left on device", "disk quota exceeded", "not enough space")),
    _Rule(
        reason.PORT_TAKEN,
        False,
        (
            "port is already allocated",
            "ports are not available",
            "bind: address already in use",
            "failed to bind host port",
        ),
    ),
)
_PULL = (
    # Before "denied": a registry that is asked too often says both.
    _Rule(reason.IMAGE_PULL_FAILED, True, ("toomanyrequests", "too many requests", "rate limit", "status: 429")),
    _Rule(reason.INVALID, False, ("invalid reference format", "invalid checksum digest", "repository name must be")),
    _Rule(
        reason.IMAGE_NOT_FOUND,
        False,
        ("manifest unknown", "name unknown", "no matching manifest", "no such image", "manifest not found"),
    ),
    _Rule(
        reason.IMAGE_DENIED,
        False,
        (
            "pull access denied",
            "unauthorized",
            "no basic auth credentials",
            "incorrect username or password",
            "authentication required",
            "requested access to the resource is denied",
            "401 unauthorized",
            "403 forbidden",
            "status: 401",
            "status: 403",
            "denied:",
            ": denied",
        ),
    ),
    _Rule(reason.IMAGE_NOT_FOUND, False, ("not found",)),
)
_NO_EXECUTABLE = (
    'unable to start container process: exec: "',
    "executable file not found",
    "exec format error",
    "no such file or directory: unknown",
    "permission denied: unknown",
    "is a directory: unknown",
)
_RUN = (
    # Not permanent: it was there a moment ago, and the next try pulls it again.
    _Rule(reason.IMAGE_NOT_FOUND, True, ("no such image",)),
    _Rule(reason.OUT_OF_MEMORY, False, ("oom-killed",)),
    _Rule(
        reason.INVALID,
        False,
        (
            *_NO_EXECUTABLE,
            "invalid mount config",
            "bind source path does not exist",
            "invalid volume specification",
            "duplicate mount point",
            "no command specified",
            "minimum memory limit",
            "range of cpus",
            "are mounting a directory onto a file",
            "not a directory: unknown",
            "invalid reference format",
        ),
    ),
    _Rule(reason.ENGINE_ERROR, False, ("does not support reading",)),  # logs that a driver sends elsewhere
    _Rule(reason.REMOVED_OUTSIDE, True, ("no such container",)),
)


def fault(status: int, message: str, doing: Doing) -> RuntimeFault:
    """What the engine's answer means; `status` 0 for an error told inside a stream."""
    lowered = message.lower()
    readable = _readable(message)
    for rule in (*_ALWAYS, *(_PULL if doing == "pull" else _RUN)):
        if rule.covers(lowered):
            return RuntimeFault(rule.code, readable, temporary=rule.temporary)
    if doing == "pull":
        return RuntimeFault(reason.IMAGE_PULL_FAILED, readable, temporary=True)
    if status == 400:
        return RuntimeFault(reason.INVALID, readable, temporary=False)
    return RuntimeFault(reason.ENGINE_ERROR, readable, temporary=True)


def _readable(message: str) -> str:
    """Without the layers of wrapping in front, the endpoint ids and the meaningless ends."""
    text = _ENDPOINT.sub("", message.strip())
    while (shorter := _WRAPPERS.sub("", text)) != text:
        text = shorter
    text = text.removesuffix(": unknown").strip() or "the engine gave no reason"
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"
