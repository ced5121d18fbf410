"""What one lab or machine holds of the computer it runs on: a name, a subnet, a folder, and the few traces outside its
namespaces, so that several test runs can share the computer and a killed run is cleared up by the next one.

A claim is a folder with a `claim.json` that says who owns it. It is taken over only when its owner is surely dead: same
boot, same pid namespace, and no process with that pid and that start time. Processes are known as ours by a variable in
their environment that carries the claim's id; nothing is ever ended by its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from tests.hosts.errors import CommandFailedError, LabError
from tests.hosts.process import alive, kill, processes, sh, started_at, wait_until

# Unix socket paths end at 108 characters and the engine's is below this folder: keep it short.
ROOT = Path(os.environ.get("ARGOSY_LAB_DIR", "/var/tmp/argosy-lab"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp") / "argosy-test-cache"
MARKER = "ARGOSY_LAB"
CGROUPS = Path("/sys/fs/cgroup")


def cache_dir() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def me() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "pid": pid,
        "started": started_at(pid),
        "boot": boot_id(),
        "pidns": str(Path("/proc/self/ns/pid").readlink()),
    }


class Claim:
    """Use as a context manager, or call `release` (again and again is fine)."""

    def __init__(self, prefix: str) -> None:
        make_root()
        sweep()
        with locked(ROOT / ".lock"):
            self.id = f"{prefix}{secrets.token_hex(3)}"
            self.directory = ROOT / self.id
            self.directory.mkdir(mode=0o755)
            self.net = free_subnet()
            self._undo: list[list[str]] = []
            self._save()

    @property
    def tag(self) -> str:
        return f"argosy-{self.id}"

    @property
    def marker(self) -> dict[str, str]:
        return {MARKER: self.id}

    def outside(self, undo: list[str], *command: str, stdin: str | None = None) -> None:
        """Change something outside the namespaces; how to undo it is on disk before it is done."""
        if undo:  # nothing to undo: it goes with an earlier step
            self._undo.append(undo)
            self._save()
        sh(*command, stdin=stdin)

    def _save(self) -> None:
        state = {"owner": me(), "net": self.net, "undo": self._undo}
        fresh = self.directory / "claim.json.new"
        fresh.write_text(json.dumps(state))
        fresh.replace(self.directory / "claim.json")

    def release(self) -> None:
        clear(self.directory, self._undo)


def make_root() -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    if ROOT.stat().st_uid != os.geteuid():
        raise LabError(f"{ROOT} belongs to another user: set ARGOSY_LAB_DIR")


def states() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in ROOT.glob("*/claim.json"):
        with contextlib.suppress(FileNotFoundError):  # its owner has just released it
            if path.stat().st_uid == os.geteuid():
                yield path.parent, json.loads(path.read_text())


def free_subnet() -> str:
    """The first three octets of an unused /24 between 10.100 and 10.199."""
    taken = {IPv4Network(f"{state['net']}.0/24") for _, state in states()}
    for route in json.loads(sh("ip", "-4", "-j", "route", "show", "table", "all")):
        if (destination := route["dst"]) != "default":
            taken.add(IPv4Network(destination, strict=False))
    for _ in range(1000):
        net = f"10.{random.randint(100, 199)}.{random.randint(0, 255)}"
        if not any(IPv4Network(f"{net}.0/24").overlaps(other) for other in taken):
            return net
    raise LabError("no free 10.x.y.0/24 on this machine")


def abandoned(owner: dict[str, Any]) -> bool:
    if owner["boot"] != boot_id():
        return True
    if owner["pidns"] != str(Path("/proc/self/ns/pid").readlink()):
        return False  # its pid means nothing here: it may well be alive
    return started_at(owner["pid"]) != owner["started"] or not alive(owner["pid"])


def sweep() -> None:
    """Clear up after earlier runs that were killed."""
    with locked(ROOT / ".lock"):
        for directory, state in list(states()):
            if abandoned(state["owner"]):
                clear(directory, state["undo"] if state["owner"]["boot"] == boot_id() else [])
        for directory in ROOT.iterdir():  # killed between its first two steps, both made under this lock
            if directory.is_dir() and directory.stat().st_uid == os.geteuid() and not any(directory.iterdir()):
                directory.rmdir()


def marked(claim_id: str) -> list[int]:
    """The processes started for a claim, found by the variable that they and their children carry."""
    sign = f"{MARKER}={claim_id}".encode()
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if sign in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and pid != os.getpid():
                found.append(pid)
    return found


def cgroups(name: str) -> list[Path]:
    """Deepest first; on version 1 every controller has its own tree."""
    tops = [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def remove_cgroups(name: str) -> None:
    """By name or pattern, below the top. A cgroup stays busy for a moment after its last process."""

    def none_left() -> bool:
        for folder in cgroups(name):
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not cgroups(name)

    wait_until(none_left, 10, f"the end of the cgroups {name}")


def clear(directory: Path, undo: list[list[str]]) -> None:
    claim_id = directory.name
    deadline = time.monotonic() + 30
    while pids := marked(claim_id):
        for pid in pids:
            kill(pid)
        if time.monotonic() > deadline:
            raise LabError(f"processes {pids} of {claim_id} do not end")
        time.sleep(0.02)
    for command in reversed(undo):
        with contextlib.suppress(CommandFailedError):  # never done, or gone together with a namespace
            sh(*command)
    remove_cgroups(f"argosy-{claim_id}*")
    if directory.exists():
        sh("rm", "-rf", "--one-file-system", directory)
