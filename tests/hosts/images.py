"""Images made of this machine's own busybox and Python, without a registry and without an engine.

The archives are written directly in the format of `docker load`. All busybox images share one layer and one archive, so
loading them all costs a fifth of a second; the Python image, twenty times as big, has its own. Archives are kept in the
cache folder under a name that depends on all they are made of.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts import packages, pyroot
from tests.hosts.claims import cache_dir, locked
from tests.hosts.process import SYSTEM_PATH, sh

BUSYBOX = "argosy-test/busybox:1"
WEB_1 = "argosy-test/web:1"
WEB_2 = "argosy-test/web:2"
WEB_BAD = "argosy-test/web:bad"
FLOOD = "argosy-test/flood:1"
TICK = "argosy-test/tick:1"
CRASH = "argosy-test/crash:1"
GRACEFUL = "argosy-test/graceful:1"
STUBBORN = "argosy-test/stubborn:1"
PYTHON = "argosy-test/python:1"

IMAGES: dict[str, str] = {
    BUSYBOX: "A shell and the usual tools; sleeps until stopped.",
    WEB_1: "HTTP on port 8080 ($PORT): / says 1, /health says ok; /cgi-bin/ has env, host, sicken, cure and exit (status 1). "
    "Listens after $START_DELAY seconds. Stops at once on SIGTERM.",
    WEB_2: "The same, but / says 2.",
    WEB_BAD: "The same, but / says bad and /health is 404: an update that must not go through.",
    FLOOD: "Writes $LINE to stdout as fast as it can.",
    TICK: "Writes `tick 1`, `tick 2` … to stdout and `tock N` to stderr, every $INTERVAL (0.1) seconds.",
    CRASH: "Writes a line to stderr and ends with status 3 ($STATUS) at once.",
    GRACEFUL: "Writes `stopping` on SIGTERM and ends with 0 at once.",
    STUBBORN: "Ignores SIGTERM: only SIGKILL ends it.",
    PYTHON: "Debian's python3 with the whole standard library, curl and the busybox tools.",
}

# A shell as PID 1 ends at once on SIGTERM with a trap, and takes the rest of its pid namespace along; a program without
# a handler would ignore the signal there, and cost every test the full grace period.
IDLE = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
WEB = (
    "trap 'exit 0' TERM; trap 'exit 1' USR1; sleep ${START_DELAY:-0} & wait $!; "
    "echo listening on ${PORT:-8080}; httpd -f -p ${PORT:-8080} -h /www & wait $!"
)
FLOODING = "trap 'exit 0' TERM; yes \"${LINE:-a line of a flood that nobody reads to its end}\" & wait $!"
TICKING = "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo tick $n; echo tock $n >&2; sleep ${INTERVAL:-0.1} & wait $!; done"
STOPPING = "trap 'echo stopping; exit 0' TERM; while :; do sleep 3600 & wait $!; done"
IGNORING = "trap '' TERM; while :; do sleep 3600; done"
CRASHING = "echo crashing on purpose >&2; exit ${STATUS:-3}"

CGI = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n"
SCRIPTS = {
    "env": CGI + "env\n",
    "host": CGI + "hostname\n",
    "sicken": CGI + "rm -f /www/health; echo sick\n",
    "cure": CGI + "echo ok >/www/health; echo cured\n",
    "exit": CGI + "echo bye; kill -USR1 1\n",
}
ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """One file system layer; the same content gives the same bytes."""

    content: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class LayerTar:
    _raw: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self._tar = tarfile.TarFile(fileobj=self._raw, mode="w", format=tarfile.GNU_FORMAT)

    def _entry(self, name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = kind, mode
        return entry

    def folder(self, name: str, mode: int = 0o755) -> None:
        self._tar.addfile(self._entry(name, tarfile.DIRTYPE, mode))

    def link(self, name: str, target: str) -> None:
        entry = self._entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._tar.addfile(entry)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        entry = self._entry(name, tarfile.REGTYPE, mode)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def done(self) -> Layer:
        self._tar.close()
        return Layer(self._raw.getvalue())


def busybox_layer() -> Layer:
    tar = LayerTar()
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "var"):
        tar.folder(name)
    tar.folder("tmp", 0o1777)
    busybox = Path(shutil.which("busybox", path=SYSTEM_PATH) or "/bin/busybox")
    tar.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in sorted(sh(busybox, "--list").split()):
        if applet != "busybox":
            tar.link(f"bin/{applet}", "busybox")
    for name, text in ETC.items():
        tar.file(name, text.encode())
    return tar.done()


def web_layer(version: str, healthy: bool) -> Layer:
    tar = LayerTar()
    for name in ("www", "www/cgi-bin"):
        tar.folder(name)
    tar.file("www/index.html", f"{version}\n".encode())
    if healthy:
        tar.file("www/health", b"ok\n")
    for name, script in SCRIPTS.items():
        tar.file(f"www/cgi-bin/{name}", script.encode(), 0o755)
    return tar.done()


@dataclass(frozen=True)
class Recipe:
    tag: str
    layers: tuple[Layer, ...]
    command: tuple[str, ...]
    port: int | None = None

    def config(self) -> bytes:
        """What `docker inspect` shows; its digest is the image's id."""
        settings: dict[str, object] = {
            "Cmd": list(self.command),
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "Labels": {"io.argosy.test": self.tag},
        }
        if self.port:
            settings["ExposedPorts"] = {f"{self.port}/tcp": {}}
        image = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "2000-01-01T00:00:00Z",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers]},
            "history": [{"created": "2000-01-01T00:00:00Z"} for _ in self.layers],
        }
        return json.dumps(image, sort_keys=True).encode()


def busybox_recipes() -> list[Recipe]:
    base = busybox_layer()

    def shell(tag: str, script: str) -> Recipe:
        return Recipe(tag, (base,), ("sh", "-c", script))

    def web(tag: str, version: str, healthy: bool = True) -> Recipe:
        return Recipe(tag, (base, web_layer(version, healthy)), ("sh", "-c", WEB), 8080)

    return [
        shell(BUSYBOX, IDLE),
        web(WEB_1, "1"),
        web(WEB_2, "2"),
        web(WEB_BAD, "bad", healthy=False),
        shell(FLOOD, FLOODING),
        shell(TICK, TICKING),
        shell(CRASH, CRASHING),
        shell(GRACEFUL, STOPPING),
        shell(STUBBORN, IGNORING),
    ]


def write_archive(recipes: Sequence[Recipe], path: Path) -> None:
    tar = LayerTar()
    layers = {layer.digest: layer for recipe in recipes for layer in recipe.layers}
    for digest, layer in layers.items():
        tar.file(f"{digest}/layer.tar", layer.content)
    manifest = []
    for recipe in recipes:
        config = recipe.config()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        tar.file(name, config)
        names = [f"{layer.digest}/layer.tar" for layer in recipe.layers]
        manifest.append({"Config": name, "RepoTags": [recipe.tag], "Layers": names})
    tar.file("manifest.json", json.dumps(manifest).encode())
    path.write_bytes(tar.done().content)


def key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def busybox_tar() -> Path:
    """All images but PYTHON."""
    packages.require("busybox-static")
    recipes = busybox_recipes()
    path = cache_dir() / f"busybox-{key(*(recipe.tag.encode() + recipe.config() for recipe in recipes))}.tar"
    with locked(cache_dir() / ".images.lock"):
        if not path.exists():
            write_archive(recipes, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
    return path


def python_tar() -> Path:
    """PYTHON alone: 48 MB, made in three seconds when it is not in the cache."""
    packages.require("busybox-static", "python3", "curl")
    base = busybox_layer()
    path = cache_dir() / f"python-{key(pyroot.fingerprint().encode(), base.digest.encode())}.tar"
    with locked(cache_dir() / ".images.lock"):
        if not path.exists():
            recipe = Recipe(PYTHON, (base, Layer(pyroot.layer())), ("sh", "-c", IDLE))
            write_archive([recipe], path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
    return path
