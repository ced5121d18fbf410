"""The Debian packages behind these fixtures. `python -m tests.hosts.packages` prints those to install, for the installer of CI:
what is there from another source, as Node.js often is, is left as it is."""

from __future__ import annotations

import os
from pathlib import Path

from tests.hosts.errors import UnpreparedError
from tests.hosts.process import SYSTEM_PATH

# Each with a program that shows it is there (a pattern: PostgreSQL's folder carries its version).
PROOFS: dict[str, str] = {
    "apache2-utils": "htpasswd",  # bcrypt entries for the registry's password file
    "busybox-static": "busybox",  # the contents of the test images
    "curl": "curl",  # HTTP from inside a host
    "docker-registry": "docker-registry",
    "docker.io": "dockerd",  # brings containerd, runc, and tini as docker-init
    "e2fsprogs": "mkfs.ext4",  # small disks that fill
    "git": "git",  # which files of a checkout go into a machine
    "iproute2": "ip",
    "iptables": "iptables",  # the engine's own rules, and NAT for machines
    "mmdebstrap": "mmdebstrap",  # the base root of machines
    "nftables": "nft",
    "nodejs": "node",  # for npm; the tests bring one of their own
    "npm": "npm",
    "postgresql": "/usr/lib/postgresql/*/bin/initdb",
    "procps": "ps",
    "python3": "python3",  # copied into the Python image
    "systemd-container": "systemd-nspawn",
    "util-linux": "nsenter",
}
PACKAGES: tuple[str, ...] = tuple(PROOFS)


def installed(package: str) -> bool:
    proof = PROOFS[package]
    folders = [Path("/")] if proof.startswith("/") else [Path(folder) for folder in SYSTEM_PATH.split(":")]
    return any(any(folder.glob(proof.lstrip("/"))) for folder in folders)


def require(*packages: str) -> None:
    """Say everything that is missing at once, with the command that mends it."""
    if os.geteuid() != 0:
        raise UnpreparedError("live tests make namespaces and run Docker Engines: run them as root")
    if missing := [package for package in packages or PACKAGES if not installed(package)]:
        names = " ".join(missing)
        raise UnpreparedError(f"missing: {names} (apt-get install -y --no-install-recommends {names})")


if __name__ == "__main__":
    print("\n".join(package for package in PACKAGES if not installed(package)))
