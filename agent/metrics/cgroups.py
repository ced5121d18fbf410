"""Where a process's resource accounts are, and what they say, in both generations of control groups.

The place is taken from `/proc/<pid>/cgroup` and never composed from an engine's habits: cgroup drivers and `--cgroup-parent` change
the path. A path that does not name the engine container is not believed: the number may mean another process here, when the
engine lives in another process namespace.
"""

from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""Above it a limit is the first generation's way to say there is none."""


@dataclass(frozen=True)
class Accounts:
    """`cpu_seconds` and the block totals since the cgroup exists; bytes. `memory` without page cache that can be dropped."""

    cpu_seconds: float
    memory: int
    memory_limit: int
    block_read: int
    block_write: int


class Cgroups:
    """Of one machine: `proc` and `mount` are `/proc` and `/sys/fs/cgroup` there."""

    def __init__(self, proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._mount = mount

    def accounts(self, pid: int, engine_id: str) -> Accounts | None:
        """None when they cannot be read, or are not those of this engine container."""
        try:
            return self._accounts(self._directories(pid), engine_id)
        except (OSError, ValueError, IndexError, KeyError):
            return None  # it ended a moment ago, or the kernel keeps no such accounts: nothing can be said

    def network(self, pid: int) -> tuple[int, int]:
        """(received, sent) in bytes over all interfaces of the process's network but loopback."""
        try:
            lines = (self._proc / str(pid) / "net" / "dev").read_text().splitlines()[2:]
            counters = [(name.strip(), values.split()) for name, _, values in (line.partition(":") for line in lines)]
            outside = [values for name, values in counters if name != "lo"]
            return sum(int(values[0]) for values in outside), sum(int(values[8]) for values in outside)
        except (OSError, ValueError, IndexError):
            return 0, 0

    def _directories(self, pid: int) -> dict[str, str]:
        """Controller → path below its mount; the second generation's under the empty name."""
        found = {}
        for line in (self._proc / str(pid) / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
        return found

    def _accounts(self, paths: dict[str, str], engine_id: str) -> Accounts | None:
        first_generation = "memory" in paths
        path = paths["memory" if first_generation else ""]
        if engine_id not in path or ".." in path.split("/"):
            return None
        return self._first(paths) if first_generation else _second(self._mount / path.lstrip("/"))

    def _first(self, paths: dict[str, str]) -> Accounts:
        directory = {name: self._mount / name / paths[name].lstrip("/") for name in ("cpuacct", "memory", "blkio")}
        cache = _pairs(directory["memory"] / "memory.stat").get("total_inactive_file", 0)
        limit = _number(directory["memory"] / "memory.limit_in_bytes")
        read, written = _block_first(directory["blkio"] / "blkio.throttle.io_service_bytes")
        return Accounts(
            cpu_seconds=_number(directory["cpuacct"] / "cpuacct.usage") / 1e9,
            memory=max(0, _number(directory["memory"] / "memory.usage_in_bytes") - cache),
            memory_limit=limit if limit < _UNLIMITED else 0,
            block_read=read,
            block_write=written,
        )


def _second(directory: Path) -> Accounts:
    cache = _pairs(directory / "memory.stat").get("inactive_file", 0)
    limit = (directory / "memory.max").read_text().strip()
    read, written = _block_second(directory / "io.stat")
    return Accounts(
        cpu_seconds=_pairs(directory / "cpu.stat")["usage_usec"] / 1e6,
        memory=max(0, _number(directory / "memory.current") - cache),
        memory_limit=0 if limit == "max" else int(limit),
        block_read=read,
        block_write=written,
    )


def _number(file: Path) -> int:
    return int(file.read_text())


def _pairs(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}


def _block_first(file: Path) -> tuple[int, int]:
    """Lines such as `8:0 Read 4096`, and a last one with the total."""
    totals = {"Read": 0, "Write": 0}
    for line in _optional(file):
        words = line.split()
        if len(words) == 3 and words[1] in totals:
            totals[words[1]] += int(words[2])
    return totals["Read"], totals["Write"]


def _block_second(file: Path) -> tuple[int, int]:
    """Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 …`."""
    read = written = 0
    for line in _optional(file):
        values = dict(word.split("=", 1) for word in line.split()[1:])
        read += int(values.get("rbytes", 0))
        written += int(values.get("wbytes", 0))
    return read, written


def _optional(file: Path) -> list[str]:
    """Block accounts are missing where the kernel or its owner switched them off; the others are worth having still."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
