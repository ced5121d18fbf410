"""One pull for everybody who needs the same image: ten instances of a new release must not fetch it ten times.

A pull ends when the last one who waits for it gives up, and not before.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.runtime.base import Runtime
from shared.spec.instance import InstanceSecrets

Progress = Callable[[int, int], None]
Key = tuple[str, str, str]


@dataclass
class _Shared:
    listeners: dict[object, Progress] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def tell(self, done: int, known: int) -> None:
        for listener in list(self.listeners.values()):
            listener(done, known)


class SharedPulls:
    """At most `limit` at once. Credentials are part of what is pulled: another's must not open an image."""

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._places = asyncio.Semaphore(limit)
        self._running: dict[Key, _Shared] = {}

    async def pull(self, image: str, secrets: InstanceSecrets, progress: Progress) -> None:
        """Raises what the runtime raises, to everybody who waits."""
        key = (image, secrets.username, secrets.password)
        shared = self._running.get(key)
        if shared is None:
            shared = self._running[key] = _Shared()
            shared.task = asyncio.create_task(self._run(key, shared, image, secrets), name=f"pull {image}")
        assert shared.task is not None
        ticket = object()
        shared.listeners[ticket] = progress
        try:
            await asyncio.shield(shared.task)
        finally:
            del shared.listeners[ticket]
            if not shared.listeners and not shared.task.done():
                self._forget(key, shared)  # first: nobody may join what is being cancelled
                shared.task.cancel()
                await asyncio.wait({shared.task})

    async def _run(self, key: Key, shared: _Shared, image: str, secrets: InstanceSecrets) -> None:
        try:
            async with self._places:
                await self._runtime.pull(image, secrets, shared.tell)
        finally:
            self._forget(key, shared)

    def _forget(self, key: Key, shared: _Shared) -> None:
        if self._running.get(key) is shared:
            del self._running[key]
