"""`argosy-agent`: read the settings, run the node until told to stop, and leave with a status a supervisor can act on.

0: stopped as asked. 2: the settings or the state directory cannot be used. 3: the coordinator refused this node for good, so
a restart cannot help. 1: a fault of the agent.
"""

import sys

import agent.lean  # noqa: F401  before anything it keeps out

# isort: split

import structlog

from agent import daemon, settings
from agent.errors import AgentError
from shared.kit import log as logging

log = structlog.get_logger()


def main() -> int:
    logging.configure("info")
    try:
        chosen = settings.from_process(sys.argv[1:])
        logging.configure(chosen.log_level)
        daemon.run(chosen)
    except AgentError as error:
        log.error("agent.failed", reason=str(error))
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
