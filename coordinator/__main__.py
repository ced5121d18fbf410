"""`argosy-coordinator`: read the settings, open what is needed, serve until told to stop."""

import asyncio
import sys

import structlog
import uvloop

from coordinator.app import serve
from coordinator.errors import StartError
from coordinator.settings import read_settings
from coordinator.store.errors import StoreError
from coordinator.store.vault import VaultError
from shared.kit import log as logging

log = structlog.get_logger("coordinator")


def main() -> int:
    logging.configure("info")
    try:
        settings = read_settings(sys.argv[1:])
        logging.configure(settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (StartError, StoreError, VaultError) as error:
        log.error("cannot start", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
