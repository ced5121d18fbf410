"""The composition root: the only place where parts are wired, started in order and stopped in reverse.

Starting: what can be wrong with the installation (directory, key, database, address) is found out before anything runs. Stopping:
agents are told to come back, followers' streams end, requests under way finish, then the loops, then the store.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from litestar import Litestar

from coordinator import VERSION, keys
from coordinator.control.collector import Collector
from coordinator.control.drains import Drains
from coordinator.control.leases import LeaseBook, Leases
from coordinator.control.orchestrator import Orchestrator
from coordinator.control.rollouts import Rollouts
from coordinator.control.samples import Samples
from coordinator.control.scheduler import Scheduler
from coordinator.doors.application import make_app
from coordinator.errors import StartError
from coordinator.hub.hub import Hub
from coordinator.hub.parts import HubParts
from coordinator.logs.broker import LogBroker
from coordinator.procedures.bootstrap import TOKEN_FILE, first_start
from coordinator.procedures.context import Services
from coordinator.settings import Settings, authority
from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.vault import Vault
from shared.kit.clock import Clock, SystemClock
from shared.wire.codec import MAX_FRAME_BYTES

log = structlog.get_logger("coordinator")

DRAIN_SECONDS = 5
"""What requests under way get to finish when told to stop; the whole stop stays under ten."""
MASTER_KEY_FILE = "master.key"
BACKLOG = 4096


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError, StoreError or VaultError when it cannot start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # first of all: whoever stops it early gets an orderly end too
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("starting", version=VERSION)
    _prepare(settings)
    clock = SystemClock()
    vault = Vault.open(settings.data_dir / MASTER_KEY_FILE)
    with _listen(settings) as listener:
        store = await Store.open(settings.database_url, clock)
        try:
            if not stop.is_set():
                await _run(settings, store, vault, clock, listener, stop)
        finally:
            await store.close()


async def _run(
    settings: Settings, store: Store, vault: Vault, clock: Clock, listener: socket.socket, stop: asyncio.Event
) -> None:
    hub_keys = await keys.load(store, vault)
    secret = await first_start(store, vault, settings.data_dir)
    if secret is not None:
        _announce(secret, settings.data_dir / TOKEN_FILE)
    book, samples, broker = LeaseBook(), Samples(), LogBroker(clock)
    notary = Notary(hub_keys.signing)
    hub = Hub(HubParts(store, vault, hub_keys, book, samples, broker, notary, clock))
    broker.attach(hub.registry)
    services = Services(
        store=store,
        vault=vault,
        notary=notary,
        clock=clock,
        leases=book,
        samples=samples,
        broker=broker,
        url=settings.url,
        hub_key=hub_keys.signing.public,
    )
    loops = [
        Leases(store, book, clock).run(),
        Rollouts(store, clock).run(),
        Orchestrator(store, clock).run(),
        Scheduler(store, book, clock).run(),
        Drains(store).run(),
        Collector(store, clock).run(),
        hub.run(),
    ]
    server = _Server(_config(make_app(services, hub.handlers)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        serving = group.create_task(server.serve(sockets=[listener]))
        log.info(
            "listening",
            at=authority(settings.host, settings.port),
            url=settings.url,
            version=VERSION,
            database=settings.database_url.partition(":")[0],
        )
        _freeze()
        await stop.wait()
        log.info("stopping")
        broker.close()
        await hub.close()
        server.should_exit = True
        await serving
        for task in tasks:
            task.cancel()


def _announce(secret: str, path: Path) -> None:
    """Once, and only to a person: a journal is no place for a token. Everybody else finds it in the file."""
    shown = f"admin token (shown once): {secret}" if sys.stdout.isatty() else f"the admin token is in {path}"
    print(shown, flush=True)  # noqa: T201 — for whoever starts it


class _Server(uvicorn.Server):
    """uvicorn takes the signals and raises them again once it has stopped; here they belong to `serve`, which exits with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Litestar) -> uvicorn.Config:
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
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _prepare(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"ARGOSY_DATA_DIR: {settings.data_dir} cannot be made: {error.strerror}") from error
    if not os.access(settings.data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(f"ARGOSY_DATA_DIR: {settings.data_dir} cannot be read and written by this user")


@contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)  # with SO_REUSEADDR it is here that a port in use is found out
        except OSError as error:
            raise StartError(f"ARGOSY_BIND: {authority(settings.host, settings.port)}: {error.strerror}") from error
        yield listener


def _freeze() -> None:
    """A full collection over ten thousand connections stops the loop for half a second: what is there now stays out of it, and
    the rest is looked at less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
