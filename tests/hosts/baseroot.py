"""The root file system under every machine: a minimal Debian with systemd, made once by mmdebstrap and never written to."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.hosts.claims import cache_dir, locked
from tests.hosts.process import sh

SUITE = "bookworm"
# What any Debian server has. Nothing that Argosy needs: finding that out is install.sh's part.
INCLUDED = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "curl",
    "ca-certificates",
    "iproute2",
    "iptables",
    "procps",
    "kmod",
    "python3-minimal",
)
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "systemd-networkd-wait-online.service")


def ready() -> Path:
    """Its folder; half a minute when it is not in the cache."""
    key = hashlib.sha256(f"{SUITE} {INCLUDED} {MASKED}".encode()).hexdigest()[:12]
    root = cache_dir() / f"machine-{SUITE}-{key}"
    with locked(cache_dir() / ".machine.lock"):
        if not root.exists():
            _make(root)
    return root


def _make(root: Path) -> None:
    fresh = root.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    archive = root.with_suffix(".tar")
    options = ("--quiet", "--variant=minbase", '--aptopt=APT::Install-Recommends "false"')
    sh("mmdebstrap", *options, f"--include={','.join(INCLUDED)}", SUITE, archive, timeout=600)
    fresh.mkdir()
    sh("tar", "-C", fresh, "--exclude=./dev/*", "-xf", archive)
    archive.unlink()
    (fresh / "etc/machine-id").write_text("")  # each machine makes its own at its first boot
    (fresh / "etc/fstab").write_text("")
    (fresh / "etc/resolv.conf").unlink(missing_ok=True)
    for unit in MASKED:
        (fresh / "etc/systemd/system" / unit).symlink_to("/dev/null")
    fresh.rename(root)
