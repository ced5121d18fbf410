"""Settings: a flag wins over its environment variable, which wins over the default."""

import argparse
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from coordinator import exposure, sign_in
from coordinator.errors import StartError
from coordinator.exposure import Exposure
from coordinator.mail import configuring
from coordinator.mail.configuring import MailSettings
from coordinator.master_key import Sources
from coordinator.sign_in import SignInSettings
from shared.kit.log import LEVELS

DEFAULT_BIND = "127.0.0.1:8420"
_MASTER_KEY_HELP = (
    "The master key is in the file master.key of the data directory, which the first start makes, unless ARGOSY_MASTER_KEY (base64)"
    " or ARGOSY_MASTER_KEY_COMMAND gives it. ARGOSY_MASTER_KEY_NEXT or ARGOSY_MASTER_KEY_NEXT_COMMAND gives rotate-key the new one;"
    " for a key in the file it makes one itself."
)
MIB = 1024 * 1024
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 — recognised, not chosen


@dataclass(frozen=True)
class Settings:
    """`action`: what the command line asks for. `url` is how agents and people reach the coordinator from elsewhere; it goes into
    the install command of join tokens. Empty when it listens on every address, none was given, and the machine has none that leads
    anywhere."""

    host: str
    port: int
    data_dir: Path
    database_url: str
    log_level: str
    url: str
    exposure: Exposure = field(default_factory=Exposure)
    master_key: Sources = field(default_factory=Sources)
    sign_in: SignInSettings = field(default_factory=SignInSettings)
    mail: MailSettings = field(default_factory=MailSettings)
    action: Literal["serve", "rotate-key"] = "serve"
    log_buffer_bytes: int = 64 * MIB


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
        epilog=_MASTER_KEY_HELP,
    )
    parser.add_argument(
        "action",
        nargs="?",
        default="serve",
        choices=("serve", "rotate-key"),
        help="serve (the default), or rotate-key: put everything under a new master key, with or without a running coordinator",
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
    parser.add_argument(
        "--master-key-command",
        default=env.get("ARGOSY_MASTER_KEY_COMMAND", ""),
        help="run once at the start, without a shell: prints the master key as base64, hexadecimal or 32 raw bytes",
    )
    parser.add_argument(
        "--log-buffer-mib",
        default=env.get("ARGOSY_LOG_BUFFER_MIB", "64"),
        help="disk that each log drain may use in the data dir while its other side does not take lines (default 64)",
    )
    exposure.add_arguments(parser, env)
    sign_in.add_flags(parser, env)
    configuring.add_flags(parser, env)
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
        exposure=exposure.read(given),
        master_key=Sources(
            text=env.get("ARGOSY_MASTER_KEY", ""),
            command=given.master_key_command,
            next_text=env.get("ARGOSY_MASTER_KEY_NEXT", ""),
            next_command=env.get("ARGOSY_MASTER_KEY_NEXT_COMMAND", ""),
        ),
        sign_in=sign_in.read(given, env),
        mail=configuring.read(given, env),
        action=given.action,
        log_buffer_bytes=_log_buffer(given.log_buffer_mib),
    )


def _default_url(host: str, port: int, outgoing: Callable[[str], str | None]) -> str:
    reachable = outgoing(host) if host in WILDCARDS else host
    return f"http://{authority(reachable, port)}" if reachable is not None else ""


def _log_buffer(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024 * 1024:
        raise StartError(f"ARGOSY_LOG_BUFFER_MIB: {text!r} is not a number of MiB from 1 to 1048576")
    return int(text) * MIB


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
