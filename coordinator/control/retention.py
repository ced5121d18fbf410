"""Lets audit entries go that are older than they need to be kept, so that what is left still proves itself.

Once a day is often enough for a limit in days. The cut is an entry of the chain itself. A chain that does not prove what it should
is left as it is, loudly: its oldest part may be all that shows what was done to it.
"""

from functools import partial

import structlog

from coordinator.control.loop import keep
from coordinator.store import proof
from coordinator.store.audit import SYSTEM, Notary
from coordinator.store.database import Store
from coordinator.store.writer import Tx
from shared.kit.clock import Clock
from shared.kit.wakeup import Wakeup

CUT_SECONDS = 86_400.0
DAY = 86_400.0

log = structlog.get_logger()


class Retention:
    def __init__(self, store: Store, notary: Notary, clock: Clock, days: int) -> None:
        """`days` 0: entries are kept for ever."""
        self._store = store
        self._notary = notary
        self._clock = clock
        self._days = days
        self._due = Wakeup()

    async def run(self) -> None:
        if self._days:
            await keep("retention", self._turn)

    async def _turn(self, afresh: bool) -> None:
        if not afresh:
            await self._due.wait(CUT_SECONDS)
        await self.cut()

    async def cut(self) -> None:
        before = self._clock.wall() - self._days * DAY
        async with self._store.read() as conn:
            found = await proof.outlived(conn, before)
        for chain, through in sorted(found.items()):
            await self._cut_chain(chain, through)

    async def _cut_chain(self, chain: str, through: int) -> None:
        """Page by page: other writes go between."""
        while True:
            done = await self._store.write(partial(proof.cut, notary=self._notary, chain=chain, through=through))
            if done.problem is not None:
                log.error("an audit chain is broken: nothing of it is removed", chain=chain, reason=done.problem)
                return
            if done.through >= through:
                break
        await self._store.write(partial(self._note, chain=chain, through=through))
        log.info("old audit entries were removed", chain=chain, through=through)

    async def _note(self, tx: Tx, chain: str, through: int) -> None:
        organization_id = None if chain == SYSTEM else chain
        await self._notary.append(
            tx,
            "audit.cut",
            chain,
            organization_id=organization_id,
            actor="system",
            detail={"through": through, "days": self._days},
        )
