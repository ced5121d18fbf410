"""Several coroutines as one: the first that fails takes the others along.

Where the caller lives on after such a failure, `together` is used in place of a bare `asyncio.TaskGroup`. On Python 3.11 a group
leaves the task it was entered in half cancelled when a member fails (`Task.cancelling()` stays above 0), and the next
`asyncio.timeout` in that task which runs out then ends the task, silently, instead of raising TimeoutError.
"""

import asyncio
from collections.abc import Coroutine


async def together(*parts: Coroutine[object, object, None]) -> None:
    """Until all have ended. Raises the ExceptionGroup of those that failed."""
    try:
        await asyncio.ensure_future(_group(parts))
    finally:
        for part in parts:
            part.close()  # those never begun, when this was cancelled before its task ran; the others have ended


async def _group(parts: tuple[Coroutine[object, object, None], ...]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(part)
