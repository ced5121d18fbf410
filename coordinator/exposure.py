"""The settings that are about callers: how much each may ask, from which pages elsewhere, and how long is kept what they did."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.doors.limits import DEFAULT_LIMITS, Limits
from coordinator.errors import StartError

MAX_NUMBER = 1_000_000_000
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Exposure:
    """`audit_days` 0: audit entries are kept for ever. `deploys_per_day`: of one organisation, 0: no limit."""

    limits: Limits = DEFAULT_LIMITS
    origins: frozenset[str] = frozenset()
    audit_days: int = 0
    deploys_per_day: int = 0


def add_arguments(parser: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
    numbers = {
        "rate-reads": (
            DEFAULT_LIMITS.reads,
            "calls a minute that read, for each token, session or address; 0: no limit",
        ),
        "rate-writes": (DEFAULT_LIMITS.writes, "calls a minute that change something; 0: no limit"),
        "rate-streams": (DEFAULT_LIMITS.streams, "log streams open at a time; 0: no limit"),
        "audit-retention-days": (0, "audit entries older than this go; 0: none ever"),
        "deploys-per-day": (
            0,
            "new containers and deploys of one organisation in a day (UTC), rollbacks and restarts aside; 0: no limit",
        ),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(
            f"--{name}", default=env.get(_variable(name), str(default)), help=f"{text} (default {default})"
        )
    parser.add_argument(
        "--cors-origins",
        default=env.get("ARGOSY_CORS_ORIGINS", ""),
        help="pages that browsers may call from, besides our own: https://app.example,https://other.example",
    )


def read(given: argparse.Namespace) -> Exposure:
    """Raises StartError naming the setting."""
    limits = Limits(
        reads=_number("rate-reads", given.rate_reads),
        writes=_number("rate-writes", given.rate_writes),
        streams=_number("rate-streams", given.rate_streams),
    )
    days = _number("audit-retention-days", given.audit_retention_days)
    return Exposure(limits, _origins(given.cors_origins), days, _number("deploys-per-day", given.deploys_per_day))


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > MAX_NUMBER:
        raise StartError(f"{_variable(name)}: {text!r} is not a number from 0 to {MAX_NUMBER}")
    return int(text)


def _origins(text: str) -> frozenset[str]:
    found = [one.strip().lower() for one in text.split(",") if one.strip()]
    for one in found:
        if not _ORIGIN.fullmatch(one):
            raise StartError(f"ARGOSY_CORS_ORIGINS: {one!r} is not an origin such as https://app.example")
    return frozenset(found)


def _variable(name: str) -> str:
    return "ARGOSY_" + name.upper().replace("-", "_")
