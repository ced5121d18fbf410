"""What this machine is: told in `hello` and whenever it changes."""

import os
import platform as machine
import socket
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

from agent import VERSION
from shared.spec.node import Engine, NodeFacts

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRST_PROCESS = Path("/proc/1/stat")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_NOTHING_SENT = 9  # the discard port; connecting a datagram socket sends nothing to it


def collect(
    engine: Engine, platform: str, data_root: str, *, address: str, labels: dict[str, str] | None = None
) -> NodeFacts:
    """`platform` and `data_root` as the engine names them, empty when it does not answer. `address`: see `source_address`.
    Reads files and the file system's figures: a few hundred microseconds."""
    disk = disk_usage(data_root)
    return NodeFacts(
        hostname=socket.gethostname()[:256],
        address=address,
        platform=platform or f"linux/{_ARCHITECTURES.get(machine.machine(), machine.machine())}",
        kernel=machine.release()[:256],
        cpu_millis=(os.cpu_count() or 1) * 1000,
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=disk[0],
        disk_free=disk[1],
        agent_version=VERSION,
        boot_id=_boot_id(),
        labels=labels or {},
        engine=engine,
    )


def disk_usage(data_root: str) -> tuple[int, int]:
    """(size, free) in bytes where the engine keeps its images and volumes. When the agent cannot see that directory, of the
    nearest one above that it can see: most machines have one file system."""
    path = Path(data_root or "/")
    for candidate in (path, *path.parents):
        try:
            usage = psutil.disk_usage(str(candidate))
        except OSError:
            continue
        return usage.total, usage.free
    return 0, 0


def source_address(host: str, port: int = _NOTHING_SENT) -> str:
    """This machine's address on the way to `host`, empty when there is none. Resolves a name: not for the event loop."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def boot_mark() -> str:
    """Another after every start of this machine. The kernel's id alone says nothing of a system container (LXC), which starts anew
    under a kernel that runs on; the start time of its process 1 does."""
    return f"{_boot_id()}/{_first_process_began()}"


def _first_process_began() -> str:
    """Field 22; the second one, a name in brackets, may hold anything."""
    try:
        return _FIRST_PROCESS.read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
