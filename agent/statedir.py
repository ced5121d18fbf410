"""The state directory: made when missing, refused when foreign, held by one agent at a time.

Two agents on one state directory would be one node twice: both would take sessions from each other and restart each other's
instances. The kernel drops the lock with the process, however it dies, so there is no stale lock to explain.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.errors import StateError


class StateDir:
    """A context manager: inside it the directory is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.path.stat().st_uid
        except OSError as error:
            raise StateError(f"state directory {self.path}: {error.strerror}") from error
        if owner != os.geteuid():
            raise StateError(f"state directory {self.path} belongs to user {owner}, not to user {os.geteuid()}")
        self._lock = self._locked()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _locked(self) -> int:
        try:
            descriptor = os.open(self.path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"state directory {self.path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StateError(f"state directory {self.path} is in use: another agent runs on it") from error
        return descriptor
