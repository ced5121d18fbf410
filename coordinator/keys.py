"""The coordinator's own keys: made at first start, kept encrypted in the database, the same for every replica.

Agents pin the signing key, so losing it means enrolling every node again: it is in every backup of the database, and useless
there without the master key.
"""

from collections.abc import Callable

from coordinator.hub.parts import HubKeys
from coordinator.store import settings
from coordinator.store.database import Store, Tx
from coordinator.store.vault import Vault
from shared.kit.seal import SealingKey, SigningKey

_SIGNING, _SEALING = "hub.signing", "hub.sealing"


async def load(store: Store, vault: Vault) -> HubKeys:
    """Raises VaultError when the master key is not this database's."""

    async def unit(tx: Tx) -> HubKeys:
        signing = await _key(tx, vault, _SIGNING, lambda: SigningKey.generate().private)
        sealing = await _key(tx, vault, _SEALING, lambda: SealingKey.generate().private)
        return HubKeys(SigningKey(signing), SealingKey(sealing))

    return await store.write(unit)


async def _key(tx: Tx, vault: Vault, name: str, make: Callable[[], bytes]) -> bytes:
    stored = await settings.get(tx.conn, name)
    if stored is None:
        stored = await settings.put_first(tx, name, vault.wrap(name, make()))
    return vault.unwrap(name, stored)
