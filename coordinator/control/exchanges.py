"""Keeps alive the tokens that nodes log in to some registries with: exchanged when new, again at two thirds of their life, and sent
to the nodes whose instances they are for.

They rest in the database, concealed, so that neither a restart of the coordinator nor a cloud that is away for an hour leaves a
node without one.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from coordinator.control.loop import keep
from coordinator.store import organizations, registries
from coordinator.store.database import Store, Tx
from coordinator.store.registries import Credentials, NotExchanged, RegistryRecord, Token
from coordinator.store.vault import Compartment, Vault, VaultError
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock
from shared.kit.seal import SealError
from shared.kit.together import together

log = structlog.get_logger("exchanges")
Exchange = Callable[[Credentials], Awaitable[Token]]
"""Raises NotExchanged."""

AT_ONCE = 4
LIFE = 2 / 3
SHORTEST_SECONDS = 60.0
LOOK_SECONDS = 3600.0


class Exchanges:
    def __init__(self, store: Store, vault: Vault, exchange: Exchange, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._exchange = exchange
        self._clock = clock
        self._changes = store.changes.subscribe("registry")
        self._failing: dict[tuple[str, int], tuple[Backoff, float]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._pause = 0.0

    async def run(self) -> None:
        try:
            await keep("exchanges", self._turn)
        finally:
            self._changes.close()

    async def _turn(self, afresh: bool) -> None:
        if not afresh:
            await self._changes.take(self._pause)
        async with self._store.read() as conn:
            known = await registries.exchanged(conn)
        present = {(record.id, record.version) for record in known}
        self._failing = {key: value for key, value in self._failing.items() if key in present}
        now = self._clock.wall()
        try:
            await together(*(self._renew(record) for record in known if self._due_at(record) <= now))
        except ExceptionGroup as group:  # all the more reason to start over when one of them is worth a traceback
            raise group.exceptions[0] from None
        self._pause = await self._until_next()

    async def _until_next(self) -> float:
        """Looked up anew: what was renewed is due at another time."""
        async with self._store.read() as conn:
            known = await registries.exchanged(conn)
        now = self._clock.wall()
        return max(1.0, min([self._due_at(record) - now for record in known], default=LOOK_SECONDS))

    def _due_at(self, record: RegistryRecord) -> float:
        failing = self._failing.get((record.id, record.version))
        return max(record.refresh_at or 0.0, failing[1] if failing else 0.0)

    async def _renew(self, record: RegistryRecord) -> None:
        key = record.id, record.version
        async with self._places:
            try:
                compartment = await self._compartment(record.organization_id)
                assert record.credentials is not None, "this kind has them always"
                token = await self._exchange(registries.opened(record.credentials, compartment, record.id))
            except (NotExchanged, SealError, VaultError) as error:
                await self._failed(record, str(error))
                return
        self._failing.pop(key, None)
        await self._store.write(lambda tx: _store(tx, record, token, compartment))
        log.info("a registry's token was renewed", registry=record.id)

    async def _compartment(self, organization_id: str) -> Compartment:
        async with self._store.read() as conn:
            organization = await organizations.get(conn, organization_id)
        if organization is None:
            raise VaultError("its organisation is gone")
        return self._vault.unlock(organization.sealed_key, organization_id)

    async def _failed(self, record: RegistryRecord, why: str) -> None:
        log.warning("a registry's token cannot be renewed", registry=record.id, reason=why)
        key = record.id, record.version
        backoff = self._failing[key][0] if key in self._failing else Backoff(base=5.0, ceiling=300.0)
        self._failing[key] = backoff, self._clock.wall() + max(1.0, backoff.next_delay())
        if why != record.check_error:
            await self._store.write(
                lambda tx: registries.change(tx, record.id, expected=record.version, checked_at=tx.now, check_error=why)
            )


async def _store(tx: Tx, record: RegistryRecord, token: Token, compartment: Compartment) -> None:
    """Nothing when the credentials were changed meanwhile: those come next."""
    told = registries.concealed(Credentials(token.username, token.password), compartment, record.id)
    life = max(SHORTEST_SECONDS, (token.expires_at - tx.now) * LIFE)
    changes = {"token": told, "refresh_at": tx.now + life, "checked_at": tx.now, "check_error": ""}
    if await registries.change(tx, record.id, expected=record.version, **changes):
        await registries.resend(tx, record)
