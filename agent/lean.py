"""Imported first: keeps out of a process that runs on every node what it has no use for. Eight MiB of sixty.

* structlog takes `rich` along when it is installed, as it is beside a coordinator, for coloured tracebacks; and `greenlet`.
  Marked absent, it prints plain ones.
* `greenlet` and frozenlist's accelerator are all that needs the C++ runtime. aiohttp's few lists do as well in plain Python.
* aiohttp reads the system's certificates, twice, when it is imported. Here it talks to an engine over a unix socket or plain TCP,
  so it is imported as on a Python without TLS, which it supports. The link's websocket does speak TLS: what it needs of the
  standard library is imported before, with it.
"""

import asyncio  # noqa: F401  see above
import http.client  # noqa: F401
import importlib
import os
import ssl
import sys
import urllib.request  # noqa: F401

_WITHOUT_TLS = "aiohttp"

for _unused in ("rich", "greenlet"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]
os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")

if _WITHOUT_TLS not in sys.modules:
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        importlib.import_module(_WITHOUT_TLS)
    finally:
        sys.modules["ssl"] = ssl
