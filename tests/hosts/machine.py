"""A brand-new Debian machine with systemd as PID 1, for what only such a machine shows: install.sh, units, reboots.

systemd-nspawn over an overlay on a base root that is made once and kept in the cache folder; a boot takes a second. It is
no security boundary: the kernel is this machine's. All of it runs inside a `Box`, so that a power cut is one signal, and
the overlay is mounted nowhere else.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess
from types import TracebackType
from typing import Self

from tests.hosts import baseroot, packages, surroundings
from tests.hosts.box import Box
from tests.hosts.claims import CGROUPS, Claim, remove_cgroups
from tests.hosts.errors import NotReadyError, PoweredOffError
from tests.hosts.process import SYSTEM_PATH, Spawned, children, wait_until

NEEDED = ("iproute2", "iptables", "mmdebstrap", "systemd-container", "util-linux", "git")
INSIDE = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
REBOOT = 133  # nspawn's status when the machine inside wants to be started again

# /var/lib/docker and its like cannot be on an overlay, because the engine's own overlays are.
MOUNT_ROOT = """
cd "$DIR"
mkdir -p upper disk root docker containerd
mount -t overlay -o "lowerdir=$BASE,upperdir=$DIR/upper,workdir=$DIR/disk" overlay root
"""
# In cgroups of its own (version 1: one in each tree), so that nothing of it is left in those of the test run.
ENTER_CGROUPS = 'for own; do shift; [ "$own" != -- ] || break; echo 0 >"$own/cgroup.procs"; done; exec "$@"'
# nspawn mounts the version 1 controllers read-only, and Docker inside wants to make cgroups.
WRITABLE_CGROUPS = """
awk '$3 == "cgroup" && $2 !~ /systemd/ {print $2}' /proc/mounts | while read -r tree; do
    mount -o remount,rw,bind "$tree"
done
mount -o remount,rw,bind /sys/fs/cgroup
"""


class Machine:
    """Use as a context manager: what is left running at its end is switched off, and its disk is thrown away.

    The machine's address is `.address`; the test's own, on the same wire, `.gateway`. With `nat` it reaches whatever this
    machine reaches, with the same package registries.
    """

    def __init__(self, name: str = "m1", *, nat: bool = False) -> None:
        self.name = name
        self._nat = nat
        self._nspawn: Spawned | None = None
        self._said = ""  # by systemctl, last

    def __enter__(self) -> Self:
        packages.require(*NEEDED)
        self._base = baseroot.ready()
        self.claim = Claim("m")
        self.directory = self.claim.directory / self.name
        self.address, self.gateway = f"{self.claim.net}.2", f"{self.claim.net}.1"
        self.box = Box(self.name, self.directory, self.claim.marker)
        try:
            self._prepare()
        except BaseException:
            self.claim.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.kill()
        finally:
            self.claim.release()

    def _prepare(self) -> None:
        etc = self.directory / "upper/etc"
        etc.mkdir(parents=True)
        (self.directory).chmod(0o700)  # package settings may hold a registry's password
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        if self._nat:
            surroundings.copy_into(self.directory / "upper")
            surroundings.open_way_out(self.claim)

    # --- power

    def boot(self, timeout: float = 60) -> None:
        """Returns when systemd says that the machine is up ("running", or "degraded")."""
        if self.is_on:
            return
        self.box.boot(f"BASE={self._base}\n{MOUNT_ROOT}")
        self._plug()
        self._nspawn = self._start_nspawn()
        try:
            wait_until(self._is_up, timeout, f"the boot of {self.name}", every=0.1)
        except NotReadyError as late:
            raise NotReadyError(f"{late}: {self._said}\n{self.box.log_tail()}") from None
        self.run(["sh", "-c", WRITABLE_CGROUPS])

    def _plug(self) -> None:
        leg, claim = f"ag-{self.claim.id}", self.claim
        claim.outside(
            ["ip", "link", "del", leg],
            *("ip", "link", "add", leg, "type", "veth", "peer", "name", "host0", "netns", str(self.box.pid)),
        )
        claim.outside([], "ip", "addr", "add", f"{self.gateway}/24", "dev", leg)
        claim.outside([], "ip", "link", "set", leg, "up")
        if self._nat:
            surroundings.forward(leg)
        lines = ["link set host0 up", f"addr add {self.address}/24 dev host0"]
        if self._nat:
            lines.append(f"route add default via {self.gateway}")
        self.box.in_network("ip", "-batch", "-", stdin="\n".join(lines))

    def _start_nspawn(self) -> Spawned:
        groups = [tree / self.claim.tag for tree in _cgroup_trees()]
        for group in groups:
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)
        binds = (f"--bind={self.directory}/{name}:/var/lib/{name}" for name in ("docker", "containerd"))
        shared = [f"--bind-ro={path}" for path in surroundings.package_folders()] if self._nat else []
        return self.box.spawn(
            [
                *("sh", "-c", ENTER_CGROUPS, "enter", *map(str, groups), "--"),
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--machine={self.name}"),
                *(f"--directory={self.directory}/root", "--capability=all", "--resolv-conf=off", "--bind-ro=/dev/kmsg"),
                *(*binds, *shared, "--boot"),
            ],
            {"PATH": SYSTEM_PATH, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes", "SYSTEMD_SECCOMP": "0"},
            cwd="/",
        )

    def _is_up(self) -> bool:
        if self._nspawn is None or self._nspawn.poll() is not None:
            raise NotReadyError(f"{self.name} ended while it booted")
        with contextlib.suppress(PoweredOffError):
            asked = self.run(["systemctl", "is-system-running"], check=False)
            self._said = asked.stdout + asked.stderr
            return asked.stdout.strip() in ("running", "degraded")
        return False

    @property
    def is_on(self) -> bool:
        return self._nspawn is not None and self._nspawn.poll() is None

    @property
    def pid(self) -> int:
        """Of systemd, as seen from the root namespace."""
        if self._nspawn is not None:
            with contextlib.suppress(ProcessLookupError):
                for child in children(self._nspawn.real_pid):
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return child
        raise PoweredOffError(self.name)

    def power_off(self, timeout: float = 60) -> None:
        """The orderly way: units are stopped."""
        self._leave("poweroff", timeout)
        self.kill()

    def reboot(self, timeout: float = 60) -> None:
        status = self._leave("reboot", timeout)
        if status != REBOOT:
            raise NotReadyError(f"{self.name} ended with {status} instead of a reboot")
        self.kill()
        self.boot(timeout)

    def _leave(self, verb: str, timeout: float) -> int:
        if self._nspawn is None:
            raise PoweredOffError(self.name)
        self.run(["systemctl", verb], check=False)
        return self._nspawn.wait(timeout)

    def kill(self) -> None:
        """A power cut. What is on its disk stays, until the machine itself is given up."""
        self.box.kill()
        if self._nspawn is not None:
            self._nspawn.end()
            self._nspawn = None
        remove_cgroups(f"{self.claim.tag}*")
        with contextlib.suppress(FileNotFoundError):
            wait_until(lambda: not Path(f"/sys/class/net/ag-{self.claim.id}").exists(), 10, "the end of its network")

    # --- inside

    def _enter(self) -> list[str]:
        return ["/usr/bin/nsenter", f"--target={self.pid}", *INSIDE, "--"]

    def spawn(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "/root", stdin: int = DEVNULL
    ) -> Spawned:
        """With pipes on its stdout and stderr."""
        inside = {"PATH": f"/usr/local/sbin:/usr/local/bin:{SYSTEM_PATH}", "HOME": "/root", "LANG": "C.UTF-8"}
        settings = {**self.claim.marker, **inside, "DEBIAN_FRONTEND": "noninteractive"}
        if self._nat:
            settings |= surroundings.package_environment()
        return Spawned(
            self._enter(), command, env={**settings, **(env or {})}, cwd=cwd, stdin=stdin, stdout=PIPE, stderr=PIPE
        )

    def run(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        stdin: str | None = None,
        timeout: float = 600,
    ) -> CompletedProcess[str]:
        process = self.spawn(command, env=env, cwd=cwd, stdin=DEVNULL if stdin is None else PIPE)
        return process.complete(stdin, timeout, check)

    def copy_in(self, source: Path, destination: str) -> None:
        """A file to a path; a folder's contents to a folder. Of a git checkout, what a fresh clone of the working tree
        would have: neither ignored files nor a virtual environment."""
        if source.is_file():
            target = Path(destination)
            self.run(["mkdir", "-p", str(target.parent)])
            self._unpack(source.parent, [source.name], str(target.parent), f"--transform=s|.*|{target.name}|")
        else:
            self.run(["mkdir", "-p", destination])
            self._unpack(source, surroundings.files_of(source), destination)

    def _unpack(self, folder: Path, names: list[str], destination: str, *options: str) -> None:
        archive = subprocess.run(
            ["tar", "-C", str(folder), "--null", "--files-from=-", "--owner=0", "--group=0", *options, "-cf", "-"],
            input="\0".join(names).encode(),
            stdout=PIPE,
            check=True,
        ).stdout
        carrier = self.claim.directory / "copy.tar"
        carrier.write_bytes(archive)
        with carrier.open("rb") as tar:
            unpacking = self.spawn(["tar", "-C", destination, "-xf", "-"], stdin=tar.fileno())
            unpacking.complete(None, 120, True)
        carrier.unlink()


def _cgroup_trees() -> list[Path]:
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return [tree for tree in CGROUPS.iterdir() if (tree / "cgroup.procs").exists() and not tree.is_symlink()]


def _inherit_cpuset(group: Path) -> None:
    """A new cpuset of version 1 is empty and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own, above = group / name, group.parent / name
        if above.exists() and own.exists():
            own.write_text(above.read_text())
