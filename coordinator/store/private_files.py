"""Small files with a secret in them, written so that a crash leaves the whole file or none: the bytes and the name reach the disk
before anything is done that counts on them."""

import os
from pathlib import Path


def write_new(path: Path, content: bytes) -> None:
    """Make the file unless there is one; whoever comes second keeps what the first wrote. Raises OSError."""
    fresh = _written(path, content)
    try:
        os.link(fresh, path)  # unlike a rename it never replaces: a key that is in use already must survive
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    _sync_directory(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Raises OSError."""
    _written(path, content).replace(path)
    _sync_directory(path.parent)


def _written(path: Path, content: bytes) -> Path:
    """A file beside `path`, readable by its owner only and safely on disk; named after the process, so that two do not meet."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
