"""Settings: a flag wins over its environment variable, which wins over the default."""

import argparse
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import StartError
from shared.kit.log import LEVELS

DEFAULT_BIND = "127.0.0.1:8420"
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 — recognised, not chosen


@dataclass(frozen=True)
class Settings:
    """`url` is how agents and people reach the coordinator from elsewhere; it goes into the install command of join tokens. Empty
    when it listens on every address, none was given, and the machine has none that leads anywhere."""

    host: str
    port: int
    data_dir: Path
    database_url: str
    log_level: str
    url: str


def outgoing_address(host: str) -> str | None:
    """The address this machine speaks to others from, for a wildcard `host`; None without a route. Connecting a datagram socket
    chooses the route and sends nothing."""
    families = [(socket.AF_INET, "192.0.2.1")]  # reserved for documentation: any address beyond this network will do
    if ":" in host:  # listens for both kinds
        families.append((socket.AF_INET6, "2001:db8::1"))
    for family, elsewhere in families:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                return str(probe.getsockname()[0])
        except OSError:  # no such route, or no such family
            continue
    return None


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_settings(
    arguments: list[str],
    environ: dict[str, str] | None = None,
    outgoing: Callable[[str], str | None] = outgoing_address,
) -> Settings:
    """Raises StartError naming the setting; SystemExit only for `--help` and unknown flags."""
    env = os.environ if environ is None else environ
    parser = argparse.ArgumentParser(
        prog="argosy-coordinator",
        description="Argosy's coordinator: desired state, the API, and the hub of all agents.",
    )
    parser.add_argument("--bind", default=env.get("ARGOSY_BIND", DEFAULT_BIND), help="host:port to listen on")
    parser.add_argument("--data-dir", default=env.get("ARGOSY_DATA_DIR", "/var/lib/argosy/coordinator"))
    parser.add_argument(
        "--database-url", default=env.get("ARGOSY_DATABASE_URL", ""), help="default: SQLite in the data dir"
    )
    parser.add_argument("--log-level", default=env.get("ARGOSY_LOG_LEVEL", "info"), help=", ".join(LEVELS))
    parser.add_argument(
        "--url", default=env.get("ARGOSY_URL", ""), help="the address agents use, as https://argosy.example"
    )
    given = parser.parse_args(arguments)
    host, port = _bind(given.bind)
    if given.log_level not in LEVELS:
        raise StartError(f"ARGOSY_LOG_LEVEL: {given.log_level!r} is none of {', '.join(LEVELS)}")
    data_dir = Path(given.data_dir)
    return Settings(
        host=host,
        port=port,
        data_dir=data_dir,
        database_url=_database_url(given.database_url, data_dir),
        log_level=given.log_level,
        url=given.url.rstrip("/") or _default_url(host, port, outgoing),
    )


def _default_url(host: str, port: int, outgoing: Callable[[str], str | None]) -> str:
    reachable = outgoing(host) if host in WILDCARDS else host
    return f"http://{authority(reachable, port)}" if reachable is not None else ""


def _bind(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise StartError(f"ARGOSY_BIND: {text!r} is not host:port, such as {DEFAULT_BIND}")
    return host.strip("[]"), int(port)


def _database_url(text: str, data_dir: Path) -> str:
    if not text:
        return f"sqlite+aiosqlite:///{data_dir / 'argosy.db'}"
    scheme, separator, rest = text.partition("://")
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    driver = drivers.get(scheme.partition("+")[0])
    if driver is None or not separator:
        raise StartError(f"ARGOSY_DATABASE_URL: must begin with sqlite:// or postgresql://, not {scheme!r}")
    return f"{driver}://{rest}"
