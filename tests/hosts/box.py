"""A set of namespaces kept alive by its own PID 1: the body of a host, and of everything else that must end as a whole.

Killing PID 1 of a pid namespace makes the kernel kill and reap everything in it, containers included, and with the last
process go its mounts, its network devices, its firewall rules and its loop devices. That is a power cut, and also the
reason why a lab leaves nothing behind: no namespace has a name, no mount exists outside.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.hosts.errors import NotReadyError, PoweredOffError
from tests.hosts.process import Spawned, Stream, children, kill, sh, wait_until

UNSHARE = (
    *("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("--propagation", "slave"),
)

# Runs as PID 1 before tini takes over. /run is private (nobody inside sees the machine's own docker.sock, and a power cut
# empties it). /etc, /var/lib and /opt are the machine's with private changes on top, which outlive a power cut: the engine
# keeps its identity there, containerd its plugins, an agent its state, and none of that may be shared by two hosts.
SETUP = """
set -eu
hostname "$NAME"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
for part in etc var/lib opt; do
    mkdir -p "$DIR/own/$part" "$DIR/work/$part"
    mount -t overlay -o "lowerdir=/$part,upperdir=$DIR/own/$part,workdir=$DIR/work/$part" overlay "/$part"
done
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
ip link set lo up
"""
# An engine or an agent of the machine itself has its identity here: absent inside, until one of the box's own makes them.
HIDDEN = ("etc/docker", "etc/argosy", "var/lib/docker", "var/lib/containerd", "var/lib/argosy", "opt/argosy")
HOLD = "\necho up\nexec >/dev/null\nexec docker-init -s -- sleep infinity\n"


class Box:
    """`directory` holds the log and, in `own/`, what differs from the machine's /etc, /var/lib and /opt."""

    def __init__(self, name: str, directory: Path, marker: Mapping[str, str]) -> None:
        self.name = name
        self.directory = directory
        self._marker = dict(marker)
        self._holder: subprocess.Popen[str] | None = None
        self._init: int | None = None
        for path in HIDDEN:
            hide(directory / "own" / path)
        for part in ("etc", "var/lib", "opt"):
            (directory / "own" / part).chmod(0o755)  # the mode of the upper half is the one that counts

    def boot(self, setup: str = "") -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        env = {**self._marker, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NAME": self.name, "DIR": str(self.directory)}
        with self.log.open("a") as log:
            holder = subprocess.Popen(
                [*UNSHARE, "sh", "-c", SETUP + setup + HOLD],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd="/",
                start_new_session=True,
            )
        assert holder.stdout is not None
        with holder.stdout as told:
            up = told.readline()
        if up.strip() != "up":
            holder.kill()
            holder.wait()
            raise NotReadyError(f"the namespaces of {self.name} did not come up: {self.log_tail()}")
        self._holder, self._init = holder, children(holder.pid)[0]

    def write_etc(self, name: str, text: str) -> None:
        """Before the box boots: an overlay does not notice changes made behind its back."""
        path = self.directory / "own/etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    @property
    def is_on(self) -> bool:
        return self._holder is not None and self._holder.poll() is None

    @property
    def pid(self) -> int:
        if self._init is None or not self.is_on:
            raise PoweredOffError(self.name)
        return self._init

    def entrance(self) -> list[str]:
        return ["/usr/bin/nsenter", f"--target={self.pid}", "--net", "--uts", "--ipc", "--pid", "--mount", "--"]

    def in_network(self, *command: str, stdin: str | None = None) -> str:
        """One of the machine's own tools, on the network of this box."""
        return sh("nsenter", f"--target={self.pid}", "--net", "--", *command, stdin=stdin)

    def spawn(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str | Path | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = subprocess.STDOUT,
    ) -> Spawned:
        """Without `stdout`, what it says goes to the log of the box."""
        whole_env = {**self._marker, **env}
        if stdout is not None:
            return Spawned(self.entrance(), command, env=whole_env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)
        with self.log.open("a") as log:
            return Spawned(self.entrance(), command, env=whole_env, cwd=cwd, stdin=stdin, stdout=log, stderr=stderr)

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str | Path | None = None,
        stdin: str | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = self.spawn(command, env, cwd=cwd, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return process.complete(stdin, timeout, check)

    def kill(self) -> None:
        """A power cut. The kernel reaps the whole pid namespace before PID 1 itself is gone, so this waits for all."""
        if self._holder is None:
            return
        if self._init is not None and self._holder.poll() is None:
            kill(self._init)
        self._holder.wait(30)
        wait_until(lambda: not Path(f"/proc/{self._init}").exists(), 10, f"the end of {self.name}")
        self._holder = self._init = None


def hide(path: Path) -> None:
    """In the upper half of an overlay, a device 0:0 says that there is nothing by this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
