"""From a drain's declaration to its target: the one place that knows which type is which class."""

from typing import assert_never

from coordinator.logs.drains.http_target import HttpTarget
from coordinator.logs.drains.syslog_target import SyslogTarget
from coordinator.logs.drains.targets import Target, trust
from coordinator.store.log_drains import DrainConfig, DrainSecret, DrainType


def make_target(kind: DrainType, config: DrainConfig, secret: DrainSecret) -> Target:
    """Reads certificates from files: not for the event loop. Raises DeliveryError."""
    context = trust(config)
    match kind:
        case "loki" | "otlp" | "http":
            return HttpTarget(kind, config, secret, context)
        case "syslog":
            return SyslogTarget(config, context)
        case _:
            assert_never(kind)
