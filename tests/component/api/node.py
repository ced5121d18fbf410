"""Node.js and the packages of `tests/node`, which npm installs once from the lock and this checkout keeps (git does not).

Distributions carry a Node.js of any age, or none that some of these packages still run on. Theirs runs npm; the tests run on the
one that the lock names, where it exists for this processor."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.hosts.errors import UnpreparedError

HOME = Path(__file__).parents[2] / "node"
INSTALL_SECONDS = 300
_STAMP = HOME / "node_modules" / ".lock-digest"


def prepare() -> Path:
    """The folder, with everything installed. Raises UnpreparedError."""
    if missing := [program for program in ("node", "npm") if shutil.which(program) is None]:
        names = " and ".join(missing)
        raise UnpreparedError(f"{names} missing (apt-get install -y --no-install-recommends nodejs npm)")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in _declarations())).hexdigest()
    if not _STAMP.exists() or _STAMP.read_text() != digest:
        _install()
        _STAMP.write_text(digest)
    return HOME


def _declarations() -> list[Path]:
    return [HOME / "package-lock.json", HOME / "package.json", *sorted(HOME.glob("v*/package.json"))]


def _install() -> None:
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise UnpreparedError(f"{' '.join(command)} in {HOME}: {done.stderr[-2000:]}")


def environment(**more: str) -> dict[str, str]:
    """With the lock's `node` first, and without what would lead a client of the tests somewhere else."""
    own = [str(path) for path in sorted(HOME.glob("node_modules/node-linux-*/bin"))]
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    return {**kept, "PATH": ":".join([*own, kept["PATH"]]), **more}
