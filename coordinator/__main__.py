"""`argosy-coordinator`: read the settings, open what is needed, serve until told to stop."""

import asyncio
import sys
from typing import assert_never

import structlog
import uvloop

from coordinator.app import serve
from coordinator.errors import StartError
from coordinator.rotate_key import rotate_key
from coordinator.settings import Settings, read_settings
from coordinator.store.errors import StoreError
from coordinator.store.vault import VaultError
from shared.kit import log as logging

log = structlog.get_logger("coordinator")


def main() -> int:
    logging.configure("info")
    settings: Settings | None = None
    try:
        settings = read_settings(sys.argv[1:])
        logging.configure(settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_act(settings))
    except (StartError, StoreError, VaultError) as error:
        log.error(
            "cannot start" if settings is None or settings.action == "serve" else "cannot be done", reason=str(error)
        )
        return 1
    return 0


async def _act(settings: Settings) -> None:
    match settings.action:
        case "serve":
            await serve(settings)
        case "rotate-key":
            print(await rotate_key(settings), flush=True)  # noqa: T201 — for whoever asked
        case _:
            assert_never(settings.action)


if __name__ == "__main__":
    sys.exit(main())
