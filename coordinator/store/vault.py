"""Secrets at rest: master key → one key per organisation → values. A stolen database alone reads nothing.

The master key lives outside the database: see `coordinator.master_key`. A value is bound to the place it was written for
(`context`): copied into another container or another variable it does not open.

Only organisation keys, and what `wrap` made, are encrypted by the master key itself. While it is being replaced the vault knows
two of them: it reads what either wrote, and writes with the newer: see `coordinator.rotation`.
"""

import os
from base64 import b64decode, b64encode
from collections import OrderedDict
from pathlib import Path

from coordinator.store import private_files
from shared.kit.seal import ENCRYPTED_EXTRA, KEY_BYTES, SealError, decrypt, encrypt

_MARK = "sealed:v1:"
_KEPT_OPEN = 4096
"""Organisations whose keys stay unlocked: each costs a hundred bytes, and unlocking one costs a hundred times the look-up."""


class VaultError(Exception):
    """The master key is missing, unreadable or not the one the database was written with."""


class Vault:
    def __init__(self, master_key: bytes) -> None:
        self._master = master_key
        self._former: bytes | None = None
        self._open: OrderedDict[str, tuple[bytes, Compartment]] = OrderedDict()

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """The vault of the key file at `path`, which is made on first use. Raises VaultError."""
        return cls(read_key(path))

    def succeed(self, master_key: bytes) -> None:
        """Write with `master_key` from now on, and read what the one before wrote."""
        if master_key != self._master:
            self._master, self._former = master_key, self._master

    def remember(self, former: bytes) -> None:
        """Read what that key wrote, too."""
        self._former = former

    def retire(self) -> None:
        """Nothing that the former key wrote is left."""
        self._former = None

    def new_key(self, organization_id: str) -> bytes:
        """A fresh organisation key, in the encrypted form its row keeps."""
        return encrypt(self._master, os.urandom(KEY_BYTES), organization_id.encode())

    def unlock(self, sealed_key: bytes, organization_id: str) -> "Compartment":
        """Raises VaultError when the master key is not the one the database was written with."""
        known = self._open.get(organization_id)
        if known is not None and known[0] == sealed_key:
            self._open.move_to_end(organization_id)
            return known[1]
        compartment = Compartment(self._decrypt(sealed_key, organization_id.encode()))
        self._open[organization_id] = sealed_key, compartment
        self._open.move_to_end(organization_id)
        if len(self._open) > _KEPT_OPEN:
            self._open.popitem(last=False)
        return compartment

    def wrap(self, name: str, value: bytes) -> bytes:
        """For the coordinator's own keys in the `setting` table, and whatever else belongs to no organisation."""
        return encrypt(self._master, value, _own(name))

    def unwrap(self, name: str, value: bytes) -> bytes:
        return self._decrypt(value, _own(name))

    def rewritten_key(self, sealed_key: bytes, organization_id: str) -> bytes | None:
        """`new_key`'s value under the present master key; None when it is already."""
        return self._rewritten(sealed_key, organization_id.encode())

    def rewrapped(self, name: str, value: bytes) -> bytes | None:
        """`wrap`'s value under the present master key; None when it is already."""
        return self._rewritten(value, _own(name))

    def _rewritten(self, sealed: bytes, context: bytes) -> bytes | None:
        try:
            decrypt(self._master, sealed, context)
        except SealError:
            return encrypt(self._master, self._decrypt(sealed, context), context)
        return None

    def _decrypt(self, sealed: bytes, context: bytes) -> bytes:
        for key in (self._master, self._former):
            if key is None:
                continue
            try:
                return decrypt(key, sealed, context)
            except SealError:
                continue
        raise VaultError("the master key does not belong to this database")


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


def read_key(path: Path) -> bytes:
    """The key in that file, which is made on first use. Raises VaultError."""
    try:
        if not path.exists():
            private_files.write_new(path, os.urandom(KEY_BYTES))
        key = path.read_bytes()
    except OSError as error:
        raise VaultError(f"the master key {path} cannot be read or made: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise VaultError(f"the master key {path} has {len(key)} bytes, not {KEY_BYTES}: restore it from a backup")
    return key


def plain_size(concealed: str) -> int:
    """Bytes of the text that `conceal` made this of, known without opening it."""
    return max(0, len(b64decode(concealed.removeprefix(_MARK))) - ENCRYPTED_EXTRA)


def env_context(container_id: str, key: str) -> str:
    """Where a container's secret variable belongs; the registry password uses the key `.registry`, which no variable can have."""
    return f"container:{container_id}:{key}"


def variable_context(variable_id: str) -> str:
    """Where a variable of an organisation, a project or an environment belongs, in all its versions."""
    return f"variable:{variable_id}"


def registry_context(registry_id: str) -> str:
    return f"registry:{registry_id}"


REGISTRY_KEY = ".registry"


def _own(name: str) -> bytes:
    return b"setting:" + name.encode()
