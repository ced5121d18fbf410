"""What a machine needs of this one to reach the outside as this one does: NAT, and the settings of package clients.

They are copied at run time into a folder that only root reads and that goes with the machine; nothing of them is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.hosts.baseroot import SUITE
from tests.hosts.claims import Claim

COPIED = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
APT_SETTINGS = Path("/etc/apt/apt.conf.d")
DEBIAN_SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d/debian.sources")
PIP_OF_ROOT = Path(".config/pip/pip.conf")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Besides git's own rules, for a checkout without a .gitignore (or no checkout at all).
LEFT_OUT = {".git", ".venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def copy_into(root: Path) -> None:
    for name in COPIED:
        _copy(Path(name), root / name.lstrip("/"))
    _copy(Path.home() / PIP_OF_ROOT, root / "root" / PIP_OF_ROOT)
    for settings in APT_SETTINGS.glob("*"):
        if "Acquire" in settings.read_text():  # how to fetch; the others are hooks of programs that are not there
            _copy(settings, root / str(settings).lstrip("/"))
    if (Path("/") / DEBIAN_SOURCES[1]).exists() and f"={SUITE}\n" in Path("/etc/os-release").read_text():
        for name in DEBIAN_SOURCES:
            _copy(Path("/") / name, root / name)


def _copy(source: Path, target: Path) -> None:
    """What is not here must not be there either: the base has sources of its own."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        shutil.copyfile(source, target)
    elif target.name == "sources.list":
        target.write_text("")


def package_environment() -> dict[str, str]:
    """Settings of pip that come as variables here; the certificates are at Debian's place in there."""
    found = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_CERT"}
    return {**found, "PIP_CERT": CERTIFICATES} if Path(CERTIFICATES).exists() else found


def package_folders() -> list[Path]:
    """Local folders that pip is told to look for packages in: shown to the machine, read-only, at the same place."""
    files = (Path("/etc/pip.conf"), Path.home() / PIP_OF_ROOT)
    texts = [value for name, value in os.environ.items() if name.startswith("PIP_")]
    texts += [file.read_text() for file in files if file.exists()]
    words = (word.removeprefix("file://") for text in texts for word in re.split(r"[\s=]+", text))
    folders = {Path(word) for word in words if word.startswith("/") and Path(word).is_dir()}
    return sorted(
        {folder.parent if folder.name == "simple" else folder for folder in folders}
    )  # its files lie beside it


def open_way_out(claim: Claim) -> None:
    """NAT for the machine's subnet. Where another firewall forbids forwarding, its chain has to be told, too."""
    net = f"{claim.net}.0/24"
    for table, chain, *rule in (
        ("nat", "POSTROUTING", "-s", net, "!", "-d", net, "-j", "MASQUERADE"),
        ("filter", "FORWARD", "-s", net, "-j", "ACCEPT"),
        ("filter", "FORWARD", "-d", net, "-j", "ACCEPT"),
    ):
        iptables = ("iptables", "--wait", "--table", table)
        claim.outside([*iptables, "--delete", chain, *rule], *iptables, "--insert", chain, *rule)


def forward(leg: str) -> None:
    """For this leg and the way out only. The latter stays so afterwards: another run may have come to need it."""
    for device in (leg, *_ways_out()):
        Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding").write_text("1")


def _ways_out() -> list[str]:
    """The devices of default routes."""
    rows = (line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:])
    return sorted({row[0] for row in rows if row[1] == "00000000"})


def files_of(folder: Path) -> list[str]:
    """Relative paths: tracked and untracked files but no ignored ones, in a checkout; else all there is."""
    listing = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        names = [name for name in listing.stdout.split("\0") if name]
    else:
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
    kept = (name for name in names if not LEFT_OUT & set(Path(name).parts))
    return sorted({name for name in kept if os.path.lexists(folder / name)})
