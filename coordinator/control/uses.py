"""When tokens and sessions were last used, written beside the requests and never before their answers.

A credential is marked by whoever looks it up; the marks of a few seconds are written together. What a crash loses is that much of
a time nobody needs to the second.
"""

import asyncio
from typing import Literal, assert_never

from coordinator.control.loop import keep
from coordinator.store import sessions, users
from coordinator.store.database import Store, Tx
from shared.kit.wakeup import Wakeup

EVERY_SECONDS = 60.0
"""A use is worth writing down when the one written last is this old."""
GATHER_SECONDS = 2.0

Credential = Literal["token", "session"]


class Uses:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: dict[tuple[Credential, str], float] = {}
        self._wakeup = Wakeup()

    def mark(self, kind: Credential, credential_id: str, last: float | None, now: float) -> None:
        """`last`: the use written last."""
        if last is None or now - last >= EVERY_SECONDS:
            self._marks[kind, credential_id] = now
            self._wakeup.wake()

    async def run(self) -> None:
        await keep("uses", self._turn)

    async def flush(self) -> None:
        """Write what is marked. StoreError leaves it marked."""
        marks = dict(self._marks)
        if not marks:
            return

        async def unit(tx: Tx) -> None:
            for (kind, credential_id), at in marks.items():
                match kind:
                    case "token":
                        await users.mark_used(tx, credential_id, at)
                    case "session":
                        await sessions.mark_used(tx, credential_id, at)
                    case never:
                        assert_never(never)

        await self._store.write(unit)
        for mark, at in marks.items():
            if self._marks.get(mark) == at:
                del self._marks[mark]

    async def _turn(self, afresh: bool) -> None:
        if not afresh:
            await self._wakeup.wait()
            await asyncio.sleep(GATHER_SECONDS)
        await self.flush()
