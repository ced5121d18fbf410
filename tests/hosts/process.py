"""Commands, and processes inside the namespaces of others.

`nsenter` has to fork to enter a pid namespace, and does not pass signals on: ending it leaves the real process running.
`Spawned` is a Popen whose signals reach the real one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.hosts.errors import CommandFailedError, NotReadyError

# Not /usr/local: the client found there on some machines is newer than the engine and has no builder.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

Stream = int | IO[str] | IO[bytes] | None


def sh(*command: str | Path, stdin: str | None = None, timeout: float = 120) -> str:
    """Run a system tool to its end on the machine itself; its output, or CommandFailedError."""
    env = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
    argv = [str(word) for word in command]
    done = subprocess.run(
        argv,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        env=env,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailedError(shlex.join(argv), done.returncode, done.stdout + done.stderr)
    return done.stdout


def wait_until(holds: Callable[[], bool], timeout: float, what: str, every: float = 0.02) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise NotReadyError(f"{what}: not within {timeout:g} s")
        time.sleep(every)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    """A zombie counts as dead: it holds no file, no socket and no namespace any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def started_at(pid: int) -> int | None:
    """Clock ticks since boot; together with the pid, the identity of a process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Spawned(subprocess.Popen[str]):
    """A process started through `nsenter`: `.pid` is nsenter's, `.real_pid` the process's own, as this machine sees it.

    `send_signal`, `terminate` and `kill` reach the process; `wait` and `returncode` tell its exit status.
    """

    def __init__(
        self,
        prefix: Sequence[str],
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = subprocess.STDOUT,
    ) -> None:
        # Entering a mount namespace moves a process to its root, so the folder has to be set again after that.
        argv = [*prefix, "/usr/bin/env", f"--chdir={cwd or Path.cwd()}", *command]
        super().__init__(
            argv,
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C belongs to pytest, which then switches everything off in order
        )
        self._inner = self._find_inner()

    def _find_inner(self) -> int | None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if found := children(self.pid):
                return found[0]
            if self.poll() is not None:
                return None  # it ended before anyone looked
            time.sleep(0.001)
        raise NotReadyError(f"{self.args!r} was not started within 10 s")

    @property
    def real_pid(self) -> int:
        if self._inner is None or self.poll() is not None:
            raise ProcessLookupError(f"{self.args!r} has ended with {self.returncode}")
        return self._inner

    def send_signal(self, sig: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.real_pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self, grace: float = 0) -> None:
        """SIGTERM (when there is a grace), then SIGKILL; the process is reaped and its pipes are closed after that."""
        if grace and self.poll() is None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(grace)
        if self.poll() is None:
            self.kill()
        self.wait(10)
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()

    def complete(self, stdin: str | None, timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
        try:
            out, err = self.communicate(stdin, timeout=timeout)
        except BaseException:
            self.end()
            raise
        if check and self.returncode != 0:
            raise CommandFailedError(str(self.args), self.returncode, (out or "") + (err or ""))
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)
