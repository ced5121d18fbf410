"""What waits to be sent to one agent: control frames before stream frames, both bounded, both already bytes.

Control frames are never dropped: an agent that lets too many pile up is too slow and loses its session. Stream frames (log
subscriptions and credits) are refused when full, and whoever sent them knows.
"""

import asyncio
from collections import deque

CONTROL_LIMIT = 4096
STREAM_LIMIT = 1024


class Lanes:
    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._stream: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._last = False

    @property
    def overfull(self) -> bool:
        return len(self._control) > CONTROL_LIMIT

    def control(self, data: bytes) -> None:
        if not self._last:
            self._control.append(data)
            self._filled.set()

    def stream(self, data: bytes) -> bool:
        if self._last or len(self._stream) >= STREAM_LIMIT:
            return False
        self._stream.append(data)
        self._filled.set()
        return True

    def finish(self, farewell: list[bytes]) -> None:
        """Nothing but these any more, then `next` says None."""
        self._control = deque(farewell)
        self._stream.clear()
        self._last = True
        self._filled.set()

    async def next(self) -> bytes | None:
        while True:
            if self._control:
                return self._control.popleft()
            if self._stream:
                return self._stream.popleft()
            if self._last:
                return None
            self._filled.clear()
            await self._filled.wait()
