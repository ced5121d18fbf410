"""Where an instance's health check is to knock, best first. Pure.

The container's own address and port are the truth. A published port goes through the engine's forwarding, which may accept a
connection that nobody behind it takes; it is for agents that cannot see the container's network.
"""

from dataclasses import dataclass

from agent.core.observe import Observed
from shared.spec.container import HealthCheck
from shared.spec.instance import InstanceSpec

_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Target:
    host: str
    port: int


def targets(spec: InstanceSpec, check: HealthCheck, observed: Observed, *, direct: bool) -> list[Target]:
    """`direct` False: the engine is on another machine, where the same container addresses mean something else. Empty when there
    is no port to knock at."""
    port = _port(spec, check)
    if port is None:
        return []
    binding = next((b for b in observed.ports if b.port == port and b.protocol == "tcp"), None)
    found: list[Target] = []
    if direct and observed.ip:
        found.append(Target(observed.ip, port))
    hosts = [_LOCAL] if direct else []
    hosts += [binding.address] if binding and binding.address and binding.address != _LOCAL else []
    if binding is not None:
        found += [Target(host, binding.host_port) for host in hosts]
    elif spec.security.host_network and direct:
        found.append(Target(_LOCAL, port))
    return found


def _port(spec: InstanceSpec, check: HealthCheck) -> int | None:
    """The check's own, else the first the instance declares: the short form `port` is put there first."""
    if check.port is not None:
        return check.port
    return next((port.port for port in spec.ports if port.protocol == "tcp"), None)
