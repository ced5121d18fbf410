"""The composition root: the only place where parts are wired, started in order and stopped in reverse.

Starting: what can be wrong with the installation (directory, key, database, address) is found out before anything runs. Stopping:
agents are told to come back, followers' streams end, requests under way finish, then the loops, then the store.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from coordinator import VERSION, keys, master_key, sign_in
from coordinator.control.collector import Collector
from coordinator.control.drains import Drains
from coordinator.control.exchanges import Exchanges
from coordinator.control.leases import LeaseBook, Leases
from coordinator.control.orchestrator import Orchestrator
from coordinator.control.retention import Retention
from coordinator.control.rollouts import Rollouts
from coordinator.control.samples import Samples
from coordinator.control.scheduler import Scheduler
from coordinator.doors.application import make_app
from coordinator.doors.local_door import Answer, LocalDoor
from coordinator.errors import StartError
from coordinator.hub.hub import Hub
from coordinator.hub.parts import HubKeys, HubParts
from coordinator.logs.broker import LogBroker
from coordinator.logs.drains.shipper import LogShipper
from coordinator.mail import configuring
from coordinator.procedures.bootstrap import TOKEN_FILE, first_start
from coordinator.procedures.context import Services
from coordinator.procedures.remembered import Remembered
from coordinator.providers.ecr import Ecr
from coordinator.providers.logins import Logins
from coordinator.providers.outward import Outward, trust
from coordinator.rotation import Rotation
from coordinator.serving import Server, freeze, listen, server_config
from coordinator.settings import Settings, authority
from coordinator.store import invitations
from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.vault import Vault
from shared.kit.clock import Clock, SystemClock

log = structlog.get_logger("coordinator")

LOST_WITH_RESTART = "failed: the coordinator was restarted before it was sent; send the invitation again"


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError, StoreError or VaultError when it cannot start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # first of all: whoever stops it early gets an orderly end too
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("starting", version=VERSION)
    _prepare(settings)
    clock = SystemClock()
    master = await asyncio.to_thread(master_key.load, settings.master_key, settings.data_dir)
    with listen(settings.host, settings.port) as listener:
        store = await Store.open(settings.database_url, clock)
        try:
            if not stop.is_set():
                rotation = Rotation(store, master)
                await rotation.settle()
                await _run(settings, store, rotation, clock, listener, stop)
        finally:
            await store.close()


async def _run(
    settings: Settings, store: Store, rotation: Rotation, clock: Clock, listener: socket.socket, stop: asyncio.Event
) -> None:
    hub_keys = await keys.load(store, rotation.vault)
    secret = await first_start(store, rotation.vault, settings.data_dir)
    if secret is not None:
        _announce(secret, settings.data_dir / TOKEN_FILE)
    await store.write(partial(invitations.give_up_queued, delivery=LOST_WITH_RESTART))
    outward = Outward(await asyncio.to_thread(trust))
    parts = _assemble(settings, store, rotation.vault, hub_keys, outward, clock)
    exposure, services = settings.exposure, parts.services
    app = make_app(services, parts.hub.handlers, limits=exposure.limits, origins=exposure.origins)
    server = Server(server_config(app, settings.sign_in.proxies))
    local = LocalDoor(settings.data_dir, partial(_rotate, rotation, services.notary))
    async with AsyncExitStack() as closing:
        closing.push_async_callback(outward.close)
        closing.push_async_callback(services.proofs.close)
        group = await closing.enter_async_context(asyncio.TaskGroup())
        await local.open()
        tasks = [group.create_task(loop) for loop in parts.loops]
        serving = group.create_task(server.serve(sockets=[listener]))
        log.info(
            "listening",
            at=authority(settings.host, settings.port),
            url=settings.url,
            version=VERSION,
            database=settings.database_url.partition(":")[0],
        )
        freeze()
        await stop.wait()
        log.info("stopping")
        await local.close()
        services.broker.close()
        await parts.hub.close()
        server.should_exit = True
        await serving
        for task in tasks:
            task.cancel()


@dataclass(frozen=True)
class _Parts:
    services: Services
    hub: Hub
    loops: list[Coroutine[Any, Any, None]]


def _assemble(
    settings: Settings, store: Store, vault: Vault, hub_keys: HubKeys, outward: Outward, clock: Clock
) -> _Parts:
    """Everything that lives as long as the process. Nothing runs yet."""
    book, samples, broker = LeaseBook(), Samples(), LogBroker(clock)
    notary = Notary(hub_keys.signing)
    hub = Hub(HubParts(store, vault, hub_keys, book, samples, broker, notary, clock))
    broker.attach(hub.registry)
    logins = Logins(outward, Ecr(outward, clock))
    postman = configuring.postman(settings.mail, clock)
    shipper = LogShipper(store, vault, broker, clock, settings.data_dir / "drains", settings.log_buffer_bytes)
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
        remembered=Remembered(store.changes, clock),
        proofs=sign_in.proofs(settings.sign_in, store, clock, settings.url),
        postman=postman,
        logins=logins,
        drains=shipper.board,
        deploys_per_day=settings.exposure.deploys_per_day,
    )
    loops = [
        Leases(store, book, clock).run(),
        Rollouts(store, clock).run(),
        Orchestrator(store, clock).run(),
        Scheduler(store, book, clock).run(),
        Drains(store).run(),
        Collector(store, clock).run(),
        Retention(store, notary, clock, settings.exposure.audit_days).run(),
        Exchanges(store, vault, logins.exchange, clock).run(),
        hub.run(),
        shipper.run(),
        services.proofs.uses.run(),
        *([] if postman is None else [postman.run()]),
    ]
    return _Parts(services, hub, loops)


async def _rotate(rotation: Rotation, notary: Notary, new: bytes | None) -> Answer:
    rotated = await rotation.rotate(notary, new)
    return Answer(values=rotated.values, finished=rotated.finished)


def _announce(secret: str, path: Path) -> None:
    """Once, and only to a person: a journal is no place for a token. Everybody else finds it in the file."""
    shown = f"admin token (shown once): {secret}" if sys.stdout.isatty() else f"the admin token is in {path}"
    print(shown, flush=True)  # noqa: T201 — for whoever starts it


def _prepare(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"ARGOSY_DATA_DIR: {settings.data_dir} cannot be made: {error.strerror}") from error
    if not os.access(settings.data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(f"ARGOSY_DATA_DIR: {settings.data_dir} cannot be read and written by this user")
