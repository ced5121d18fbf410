"""A wake-up that coalesces: many `wake` calls before the sleeper looks are one.

The whole system is level-triggered: a wake-up never carries what changed, it only says "look again".
"""

import asyncio


class Wakeup:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, timeout: float | None = None) -> bool:
        """Sleep until woken or for `timeout` seconds; True when woken. Clears the wake-up."""
        if timeout is not None and timeout <= 0:
            woken = self._event.is_set()
            self._event.clear()
            return woken
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class DirtySet:
    """A wake-up that remembers which keys are to be looked at again, each once."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._wakeup = Wakeup()

    def add(self, *keys: str) -> None:
        self._keys.update(keys)
        self._wakeup.wake()

    async def take(self, timeout: float | None = None) -> set[str]:
        """The keys added since the last call, after waiting for the first; empty when `timeout` seconds passed."""
        while not self._keys and await self._wakeup.wait(timeout):
            pass  # woken by what the call before took without waiting for it
        taken, self._keys = self._keys, set()
        return taken
