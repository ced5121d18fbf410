"""A little of the disk, kept for the day it is full.

To open the journal takes room, as SQLite writes beside it before it can read. Without this, an agent that restarts on a full disk
could not even learn what it is to run, and would stay away just when somebody wants to see why.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

BALLAST_BYTES: Final = 2**20
ROOM_BYTES: Final = 64 * BALLAST_BYTES
"""Free, before any is taken again."""


class Ballast:
    """Best effort on both ways: it must never be the reason why something fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = False

    def drop(self) -> bool:
        """Whether there was any: what failed is worth another try then."""
        self._kept = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def keep(self) -> None:
        """Take it (again) if there is room. Random bytes: a file system that compresses would keep a name and no room."""
        if self._kept:
            return
        with suppress(OSError):
            if self._path.exists():
                self._kept = True
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize >= ROOM_BYTES:
                self._path.write_bytes(os.urandom(BALLAST_BYTES))
                self._kept = True
