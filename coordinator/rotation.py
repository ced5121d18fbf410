"""Replacing the master key, while the coordinator runs or while it does not, such that a crash at any point leaves an installation
that opens with the key the next start finds.

1. One transaction notes the new key under the former and the former under the new (`store.rekey`). From here on either opens all.
2. The vault writes with the new key, and all that the former wrote is put under the new: organisation keys, the coordinator's
   own keys, second factors. Values themselves are untouched, for they are under their organisation's key.
3. The new key takes the file's place, by a rename. A key from elsewhere is for the operator to put there.
4. The bridge is burnt: the former key opens nothing any more. A key from elsewhere keeps it until a start with the new key.
5. The next start looks once more for what was written with the former key by something under way in step 2, and forgets it.
"""

import asyncio
import os
from dataclasses import dataclass

import structlog

from coordinator.errors import PreconditionFailed
from coordinator.master_key import MasterKey
from coordinator.store import private_files, rekey
from coordinator.store.audit import SYSTEM, Notary
from coordinator.store.database import Store, Tx
from coordinator.store.vault import Vault, VaultError
from shared.kit.seal import KEY_BYTES

log = structlog.get_logger("rotation")


@dataclass(frozen=True)
class Rotated:
    """`values`: how many were put under the new key. `finished` False: the operator has yet to give it to the next start."""

    values: int
    finished: bool


class Rotation:
    """Of one coordinator. `settle` makes the vault, `rotate` changes its key."""

    def __init__(self, store: Store, master: MasterKey) -> None:
        self._store = store
        self._key = master.key
        self._file = master.file
        self._lock = asyncio.Lock()
        self.vault = Vault(master.key)

    async def settle(self) -> None:
        """At the start, before anything else reads or writes a secret: end what was begun. Raises VaultError, StoreError."""
        async with self._store.read() as conn:
            notes = await rekey.known(conn, self._key)
        if notes.bridged is not None:
            self._take(notes.bridged)
            await self._finish()
            if self._file is None:
                log.warning("the master key was replaced, and this start still used the former one")
        elif notes.former is not None:
            self.vault.remember(notes.former)
            await rekey.rewrite(self._store, self.vault)
            await self._store.write(rekey.forget)
            self.vault.retire()

    async def rotate(self, notary: Notary, new: bytes | None) -> Rotated:
        """To `new`, or where the key is in a file to one made here. Raises PreconditionFailed, VaultError, StoreError."""
        async with self._lock:
            await self._end_last()
            if new is None and self._file is None:
                raise PreconditionFailed("ARGOSY_MASTER_KEY_NEXT: is needed, for the master key is in no file of ours")
            new = new or os.urandom(KEY_BYTES)
            old = self._key
            if new == old:
                raise PreconditionFailed("ARGOSY_MASTER_KEY_NEXT: is the present master key")
            # Now or never: what opens only with the key before this one would be lost, for a vault knows two keys.
            await rekey.rewrite(self._store, self.vault, strict=True)

            async def begin(tx: Tx) -> None:
                await rekey.begin(tx, old, new)
                await notary.append(tx, "system.rotateKey", SYSTEM, organization_id=None, actor=SYSTEM, detail={})

            await self._store.write(begin)
            self._take(new)
            return Rotated(await self._finish(), self._file is not None)

    async def _end_last(self) -> None:
        """A rotation that the disk or the database stopped half-way."""
        async with self._store.read() as conn:
            if not await rekey.pending(conn):
                return
        if self._file is None:
            raise PreconditionFailed("the last rotation is not over: restart the coordinator with the new key first")
        await self._finish()

    async def _finish(self) -> int:
        changed = await rekey.rewrite(self._store, self.vault)
        await self._install()
        log.info("the master key was replaced", values=changed)
        return changed

    def _take(self, new: bytes) -> None:
        self._key = new
        self.vault.succeed(new)

    async def _install(self) -> None:
        """Raises VaultError when the file cannot be replaced: the bridge stays, and the next start tries again."""
        if self._file is None:
            return
        try:
            await asyncio.to_thread(private_files.replace, self._file, self._key)
        except OSError as error:
            raise VaultError(f"the master key {self._file} cannot be replaced: {error.strerror}") from error
        await self._store.write(rekey.burn_bridge)
