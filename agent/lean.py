"""Imported first: keeps out of a process that runs on every node what it has no use for.

structlog takes `rich` along when it is installed, as it is beside a coordinator: five MiB of resident memory for coloured
tracebacks, a tenth of what the whole agent needs. Marked absent, structlog prints plain ones.
"""

import sys

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
