"""Secrets at rest: master key → one key per organisation → values. A stolen database alone reads nothing.

The master key lives outside the database, in a 0600 file of the data directory. A value is bound to the place it was written for
(`context`): copied into another container or another variable it does not open.
"""

import os
from base64 import b64decode, b64encode
from pathlib import Path

from coordinator.store import private_files
from shared.kit.seal import ENCRYPTED_EXTRA, KEY_BYTES, SealError, decrypt, encrypt

_MARK = "sealed:v1:"


class VaultError(Exception):
    """The master key is missing, unreadable or not the one the database was written with."""


class Vault:
    def __init__(self, master_key: bytes) -> None:
        self._master = master_key

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """The vault of the key file at `path`, which is made on first use. Raises VaultError."""
        try:
            if not path.exists():
                private_files.write_new(path, os.urandom(KEY_BYTES))
            key = path.read_bytes()
        except OSError as error:
            raise VaultError(f"the master key {path} cannot be read or made: {error.strerror}") from error
        if len(key) != KEY_BYTES:
            raise VaultError(f"the master key {path} has {len(key)} bytes, not {KEY_BYTES}: restore it from a backup")
        return cls(key)

    def new_key(self, organization_id: str) -> bytes:
        """A fresh organisation key, in the encrypted form its row keeps."""
        return encrypt(self._master, os.urandom(KEY_BYTES), organization_id.encode())

    def unlock(self, sealed_key: bytes, organization_id: str) -> "Compartment":
        """Raises VaultError when the master key is not the one the database was written with."""
        try:
            return Compartment(decrypt(self._master, sealed_key, organization_id.encode()))
        except SealError as error:
            raise VaultError("the master key does not belong to this database") from error

    def wrap(self, name: str, value: bytes) -> bytes:
        """For the coordinator's own keys in the `setting` table."""
        return encrypt(self._master, value, b"setting:" + name.encode())

    def unwrap(self, name: str, value: bytes) -> bytes:
        try:
            return decrypt(self._master, value, b"setting:" + name.encode())
        except SealError as error:
            raise VaultError("the master key does not belong to this database") from error


class Compartment:
    """One organisation's values."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def conceal(self, text: str, context: str) -> str:
        return _MARK + b64encode(encrypt(self._key, text.encode(), context.encode())).decode()

    def reveal(self, concealed: str, context: str) -> str:
        """Raises SealError when it is not a concealed value of this organisation and context."""
        if not concealed.startswith(_MARK):
            raise SealError("not a concealed value")
        return decrypt(self._key, b64decode(concealed[len(_MARK) :]), context.encode()).decode()


def plain_size(concealed: str) -> int:
    """Bytes of the text that `conceal` made this of, known without opening it."""
    return max(0, len(b64decode(concealed.removeprefix(_MARK))) - ENCRYPTED_EXTRA)


def env_context(container_id: str, key: str) -> str:
    """Where a container's secret variable belongs; the registry password uses the key `.registry`, which no variable can have."""
    return f"container:{container_id}:{key}"


REGISTRY_KEY = ".registry"
