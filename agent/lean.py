"""Imported first: keeps out of a process that runs on every node what it has no use for. Resident memory, measured here:

* structlog takes `rich` and `greenlet` along when they are installed, as they are beside a coordinator: 6 MiB for coloured
  tracebacks and for a kind of thread nobody uses. Marked absent, it does without.
* aiohttp loads every certificate authority of the system while it is imported, 2.5 MiB, for https requests that the agent never
  makes: it speaks HTTP to its engine only. The link to the coordinator loads them when its URL is `wss`.
"""

import ssl
import sys

for _name in ("rich", "greenlet"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]

_load_default_certs = ssl.SSLContext.load_default_certs
ssl.SSLContext.load_default_certs = lambda self, purpose=ssl.Purpose.SERVER_AUTH: None  # type: ignore[method-assign]
try:
    import aiohttp.connector  # noqa: F401
finally:
    ssl.SSLContext.load_default_certs = _load_default_certs  # type: ignore[method-assign]
