"""The histories, in memory for the loop and in the journal for the next agent. Written in batches by a thread: a start must not
wait for a disk, and a record that a power cut swallows is made good by looking at the engine."""

import asyncio
from collections.abc import Mapping
from typing import Literal

import structlog

from agent.core.history import FRESH, History, resumed, unwatched
from agent.journal.journal import Journal, JournalError, JournalState
from shared.kit.wakeup import Wakeup

RETRY_SECONDS = 5.0

log = structlog.get_logger()


class Memory:
    """`boot_id`: of the machine, as it is now. Another than the journal's means that everything was down, not just the agent."""

    def __init__(self, journal: Journal, state: JournalState, boot_id: str) -> None:
        self._journal = journal
        self._boot_id = boot_id
        same_boot = boot_id == state.boot_id
        self._records = {name: resumed(record, same_boot=same_boot) for name, record in state.history.items()}
        # With the marks just made, should this agent die before the engine answered: written in one go with the boot id.
        self._unwritten: dict[str, History | None] = dict(self._records)
        self._boot_unwritten = not same_boot
        self._wakeup = Wakeup()
        if self._unwritten or self._boot_unwritten:
            self._wakeup.wake()

    @property
    def records(self) -> Mapping[str, History]:
        return self._records

    def get(self, instance_id: str) -> History:
        return self._records.get(instance_id, FRESH)

    def put(self, instance_id: str, record: History) -> None:
        if self._records.get(instance_id) != record:
            self._records[instance_id] = record
            self._note(instance_id, record)

    def drop(self, instance_id: str) -> None:
        if self._records.pop(instance_id, None) is not None:
            self._note(instance_id, None)

    def unwatch(self, by: Literal["agent", "engine"]) -> None:
        for instance_id, record in list(self._records.items()):
            self.put(instance_id, unwatched(record, by))

    async def run(self) -> None:
        """Write whatever is new, for ever. A disk that takes nothing is tried again: the node goes on from memory."""
        failing = False
        while True:
            await self._wakeup.wait(RETRY_SECONDS if failing else None)
            try:
                await self.flush()
                failing = False
            except JournalError as error:
                if not failing:
                    log.error("instance histories cannot be written, retrying", error=str(error))
                failing = True

    async def close(self) -> None:
        """Write what is left, if the disk lets us."""
        try:
            await self.flush()
        except JournalError as error:
            log.error("the last instance histories could not be written", error=str(error))

    async def flush(self) -> None:
        """Raises JournalError; nothing is lost by it."""
        batch, self._unwritten = self._unwritten, {}
        boot, self._boot_unwritten = self._boot_unwritten, False
        try:
            if batch:
                await asyncio.to_thread(self._journal.save_history, batch)
            if boot:  # after the records: a boot id without their marks would pass a reboot off as an agent's restart
                await asyncio.to_thread(self._journal.save_boot, self._boot_id)
        except BaseException:
            self._unwritten = {**batch, **self._unwritten}
            self._boot_unwritten = boot
            raise

    def _note(self, instance_id: str, record: History | None) -> None:
        self._unwritten[instance_id] = record
        self._wakeup.wake()
