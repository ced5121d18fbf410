"""Debian's own Python as an image layer: the interpreter, its standard library, curl, and the libraries that these load.

`ldd` says which libraries are needed, so no package has to be fetched or unpacked. Certificates stay out: a lab has no way
to a server that would need them, and this machine's bundle is its own business.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.hosts.process import sh

# Parts of the standard library that no container needs, most of its size.
UNUSED = {"test", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "__pycache__"}
LIBRARY = re.compile(r"(/\S+\.so\S*)")
FORMAT = 1  # to be raised when this module changes what the layer holds


def interpreter() -> Path:
    return Path("/usr/bin/python3").resolve()


def fingerprint() -> str:
    """Changes with the packages that the layer is copied from."""
    sources = [interpreter(), Path("/usr/bin/curl"), stdlib() / "os.py", *sorted(libraries())]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    return f"{FORMAT} {stats}"


def stdlib() -> Path:
    return Path("/usr/lib") / interpreter().name


def stdlib_files() -> Iterator[Path]:
    for folder, below, names in os.walk(stdlib()):
        below[:] = sorted(name for name in below if name not in UNUSED and not name.startswith("config-"))
        yield from (Path(folder) / name for name in sorted(names))


def libraries() -> set[Path]:
    """By the names under which they are looked for; the loader itself among them."""
    programs = [interpreter(), Path("/usr/bin/curl"), *(stdlib() / "lib-dynload").glob("*.so")]
    found = {Path(match) for match in LIBRARY.findall(sh("ldd", *programs))}
    resolvers = {path for library in found for path in library.parent.glob("libnss_[df]*.so.2")}  # loaded by name
    return {path for path in found | resolvers if stdlib() not in path.parents}


def layer() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT, dereference=True) as tar:

        def add(path: Path, name: Path | None = None) -> None:
            """At its own place, and not below a merged /lib: the image below has real folders."""
            entry = tar.gettarinfo(path, str(name or path).lstrip("/"))
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            with path.open("rb") as source:
                tar.addfile(entry, source)

        for path in [Path("/usr/bin/curl"), *sorted(libraries()), *stdlib_files()]:
            if path.exists():
                add(path)
        add(interpreter(), Path("/usr/bin/python3"))
    return raw.getvalue()
