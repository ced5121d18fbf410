"""The HTTP server under the application: its socket, its settings, and how the process is made ready to serve.

The socket is opened first of all, so that a taken port is found out before anything else is touched.
"""

import gc
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from litestar import Litestar

from coordinator.errors import StartError
from coordinator.settings import authority
from shared.wire.codec import MAX_FRAME_BYTES

DRAIN_SECONDS = 5
"""What requests under way get to finish when told to stop; the whole stop stays under ten."""
BACKLOG = 4096


class Server(uvicorn.Server):
    """uvicorn takes the signals and raises them again once it has stopped; here they belong to `serve`, which exits with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_config(app: Litestar, proxies: Sequence[str]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",  # parses in C what h11 parses in Python
        ws="websockets-sansio",  # pinned: the other implementations cost 2x the memory or the time
        ws_per_message_deflate=False,  # 35 KiB a connection; large frames are compressed one by one instead
        ws_ping_interval=None,  # the lease is the liveness check
        ws_max_size=MAX_FRAME_BYTES + 1024,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),  # its own default believes whoever calls from this machine
        forwarded_allow_ips=list(proxies),
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)  # with SO_REUSEADDR it is here that a port in use is found out
        except OSError as error:
            raise StartError(f"ARGOSY_BIND: {authority(host, port)}: {error.strerror}") from error
        yield listener


def freeze() -> None:
    """A full collection over ten thousand connections stops the loop for half a second: what is there now stays out of it, and
    the rest is looked at less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
