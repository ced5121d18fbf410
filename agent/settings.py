"""Settings from flags, then from the environment, then from defaults; checked here, once, so that nothing later meets a bad one.

Every refusal is one line that names the option and its variable: it is read in a journal, by somebody in a hurry. Read by hand:
`argparse` would stay in memory, a MiB on every node, for eight options.
"""

import ipaddress
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec

from agent import VERSION
from agent.errors import SettingsError
from shared.kit.log import LEVELS
from shared.spec.container import Labels
from shared.wire import join

ENDPOINT = "/agent/v1"
_SYSTEM_POLICY = Path("/etc/argosy/policy.toml")
_SOCKETS = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_ENGINES = ("unix", "tcp", "http")
_OPTIONS: dict[str, tuple[str, str, str, str]] = {
    "coordinator": ("ARGOSY_COORDINATOR", "", "URL", "the coordinator: http(s)://host:port or ws(s)://host:port"),
    "join": ("ARGOSY_JOIN", "", "TOKEN", "join token, needed once: until this node has its identity"),
    "state-dir": ("ARGOSY_STATE_DIR", "/var/lib/argosy/agent", "DIR", "identity and journal of this node"),
    "docker-host": ("ARGOSY_DOCKER_HOST", "unix:///var/run/docker.sock", "URL", "the Docker Engine's API"),
    "address": ("ARGOSY_ADDRESS", "", "IP", "where published ports of this node are reached (default: found out)"),
    "log-level": ("ARGOSY_LOG_LEVEL", "info", "LEVEL", ", ".join(LEVELS)),
    "policy": (
        "ARGOSY_POLICY",
        "",
        "FILE",
        f"what this node refuses (default: DIR/policy.toml, else {_SYSTEM_POLICY})",
    ),
}


@dataclass(frozen=True)
class Settings:
    """`endpoint` is the coordinator's websocket URL. `policy` None: the built-in refusals."""

    endpoint: str
    token: join.JoinToken | None
    state_dir: Path
    docker_host: str
    address: str
    labels: dict[str, str]
    log_level: str
    policy: Path | None


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Raises SettingsError. `--help` and `--version` print and raise SystemExit."""
    if {"--help", "-h"} & {*arguments}:
        _print_and_leave(_help())
    if "--version" in arguments:
        _print_and_leave(VERSION)
    given, labels = _read(arguments)
    values = {name: _value(given, name, environment) for name in _OPTIONS}
    state_dir = Path(values["state-dir"]).absolute()
    return Settings(
        endpoint=_endpoint(values["coordinator"]),
        token=_token(values["join"]),
        state_dir=state_dir,
        docker_host=_docker_host(values["docker-host"]),
        address=_address(values["address"]),
        labels=_labels(labels, environment.get("ARGOSY_LABELS", "")),
        log_level=_log_level(values["log-level"]),
        policy=_policy(values["policy"], state_dir),
    )


def from_process(arguments: Sequence[str]) -> Settings:
    return parse(arguments, os.environ)


def _read(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(option → value, labels)."""
    values: dict[str, str] = {}
    labels: list[str] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in (*_OPTIONS, "label"):
            raise SettingsError(f"{word!r} is no option of the agent; --help lists them")
        found = [value] if equals else _following(words, name)
        if name == "label":
            labels += found
        else:
            values[name] = found[0]
    return values, labels


def _following(words: deque[str], name: str) -> list[str]:
    """What belongs to an option: one word, and for `--label` all up to the next option."""
    found: list[str] = []
    while words and not (found and name != "label") and (not words[0].startswith("--")):
        found.append(words.popleft())
    if not found:
        raise SettingsError(f"--{name} needs a value")
    return found


def _print_and_leave(text: str) -> NoReturn:
    sys.stdout.write(f"{text}\n")
    raise SystemExit(0)


def _help() -> str:
    lines = [
        "usage: argosy-agent --coordinator URL [--join TOKEN] [option VALUE ...]",
        "",
        "Run this machine as a node of Argosy.",
        "",
    ]
    for name, (variable, default, metavar, text) in _OPTIONS.items():
        shown = f", default {default}" if default else ""
        lines.append(f"  --{name} {metavar:<{16 - len(name)}} {text} ({variable}{shown})")
    lines.append("  --label K=V ...     labels of this node (ARGOSY_LABELS: k=v,k2=v2)")
    return "\n".join([*lines, "  --version", "  --help"])


def _value(given: Mapping[str, str], name: str, environment: Mapping[str, str]) -> str:
    variable, default, _, _ = _OPTIONS[name]
    return given.get(name, environment.get(variable) or default).strip()


def _wrong(name: str, why: str) -> SettingsError:
    return SettingsError(f"--{name} ({_OPTIONS[name][0]}): {why}")


def _endpoint(text: str) -> str:
    if not text:
        raise _wrong("coordinator", "is required, for example https://argosy.example.com")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _wrong("coordinator", f"{text!r} is not a URL: {error}") from error
    if parts.scheme not in _SOCKETS or not parts.hostname:
        raise _wrong("coordinator", f"{text!r} must read http(s)://host:port or ws(s)://host:port")
    if parts.username is not None or parts.query or parts.fragment:
        raise _wrong("coordinator", f"{parts.hostname!r}: a user, query or fragment does not belong into the URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/").removesuffix(ENDPOINT)
    return f"{_SOCKETS[parts.scheme]}://{host}{'' if port is None else f':{port}'}{path}{ENDPOINT}"


def _token(text: str) -> join.JoinToken | None:
    if not text:
        return None
    try:
        return join.parse(text)
    except ValueError as error:
        raise _wrong("join", str(error)) from error


def _docker_host(text: str) -> str:
    parts = urlsplit(text)
    target = parts.path if parts.scheme == "unix" else parts.netloc
    if parts.scheme not in _ENGINES or not target:
        raise _wrong("docker-host", f"{text!r} must read unix:///path/to/docker.sock or tcp://host:port")
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as error:
        raise _wrong("address", f"{text!r} is not an IP address") from error


def _labels(flags: Sequence[str], variable: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in [*filter(None, (part.strip() for part in variable.split(","))), *flags]:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--label (ARGOSY_LABELS): {pair!r} must read key=value")
        key = key.strip()
        if key.startswith("argosy."):
            raise SettingsError(f"--label (ARGOSY_LABELS): {key!r}: labels that begin with 'argosy.' are Argosy's own")
        labels[key] = value.strip()
    try:
        return msgspec.convert(labels, Labels)
    except msgspec.ValidationError as error:
        raise SettingsError(f"--label (ARGOSY_LABELS): {error}") from error


def _log_level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise _wrong("log-level", f"{text!r} must be one of {', '.join(LEVELS)}")
    return text.lower()


def _policy(text: str, state_dir: Path) -> Path | None:
    if text:
        named = Path(text).absolute()
        if not named.is_file():
            raise _wrong("policy", f"{named} does not exist or is not a file")
        return named
    return next((path for path in (state_dir / "policy.toml", _SYSTEM_POLICY) if _exists(path)), None)


def _exists(path: Path) -> bool:
    """An unreadable directory counts as one with a policy: the loader then says so, instead of the policy being passed over."""
    try:
        return path.exists()
    except OSError:
        return True
