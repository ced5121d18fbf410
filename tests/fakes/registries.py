"""Logging in to registries, for tests: the real thing, with one look at the machine's certificate authorities for all of them."""

import ssl
from functools import cache

from coordinator.providers.ecr import ENDPOINT, Ecr
from coordinator.providers.logins import Logins
from coordinator.providers.outward import Outward, trust
from shared.kit.clock import Clock, SystemClock


def logins(clock: Clock | None = None, *, endpoint: str = ENDPOINT, tls: ssl.SSLContext | None = None) -> Logins:
    """`endpoint`: where Amazon is taken to be."""
    outward = Outward(tls or machine())
    return Logins(outward, Ecr(outward, clock or SystemClock(), endpoint))


@cache
def machine() -> ssl.SSLContext:
    return trust()
