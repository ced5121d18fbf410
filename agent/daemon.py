"""The agent put together: the only place where its parts know of each other.

Two acts. `enrol`, once in a node's life: exchange the join token for an id. Then the node itself, whose parts all run until one
of them fails for good or the process is told to stop. Stopping means: take on nothing new, tell the coordinator what there is to
tell, and go. Containers are not the agent's to stop; they run on, and the next agent adopts them.
"""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from errno import ENOENT
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from agent import VERSION
from agent.core.policy import Policy, admit, parse
from agent.errors import AgentError, SettingsError, StateError
from agent.identity import IdentityFile
from agent.journal.journal import Journal, JournalError
from agent.link.dialer import Dialer, Link, enrol
from agent.link.node import Node
from agent.logs.streams import LogStreams
from agent.metrics.facts import boot_mark, disk_usage, source_address
from agent.probes.prober import Prober
from agent.reconcile.book import AssignmentBook
from agent.reconcile.executor import Means
from agent.reconcile.loop import Reconciler
from agent.reconcile.memory import Memory
from agent.reconcile.reports import ReportBox
from agent.runtime.docker import DockerRuntime
from agent.settings import Settings
from agent.statedir import StateDir
from agent.survey import Survey
from shared.kit.backoff import Backoff
from shared.kit.clock import SystemClock
from shared.wire.frames import LogChunk, LogEnd

STOP_SECONDS = 9.0
"""Whoever stops the agent waits ten, then kills it."""
_PART_SECONDS = 3.0
"""For a name to be resolved at the start; for work to be let go of, and for the last reports to be taken, at the end."""
_THREADS = 4
_AT_HOME = ("localhost", "127.0.0.1", "::1")

log = structlog.get_logger()


@dataclass(frozen=True)
class Ground:
    """What the agent stands on: its settings, and what its state directory holds."""

    settings: Settings
    identity: IdentityFile
    policy: Policy
    journal: Journal


@dataclass(frozen=True)
class Parts:
    """What works side by side, wired."""

    survey: Survey
    reconciler: Reconciler
    link: Link


def run(settings: Settings) -> None:
    """Until told to stop. Raises AgentError, whose message is the one line that says why it cannot go on."""
    with StateDir(settings.state_dir):
        identity = IdentityFile.open(settings.state_dir, settings.token)
        policy = _policy(settings.policy)
        try:
            with closing(Journal(settings.state_dir / "journal.db")) as journal:
                asyncio.run(_serve(Ground(settings, identity, policy, journal)))
        except JournalError as error:
            raise StateError(str(error)) from error


async def _serve(ground: Ground) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "agent"))
    stop = asyncio.Event()

    def leave() -> None:
        stop.set()
        _leave_by_force_after(STOP_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    address = await _introduce(ground)
    enrolled = ground.identity.current.node_id is not None or await _unless(stop, _enrol(ground, address))
    if enrolled:
        await _node(ground, address, stop)
    log.info("agent.stopped", message="containers keep running")


async def _introduce(ground: Ground) -> str:
    """This node's address, once it was said what is about to run."""
    settings = ground.settings
    host = urlsplit(settings.endpoint).hostname or ""
    address = settings.address or await _found_address(host)
    node = ground.identity.current.node_id
    log.info("agent.start", version=VERSION, coordinator=settings.endpoint, node=node, address=address)
    if settings.endpoint.startswith("ws://") and host not in _AT_HOME:
        log.warning(
            "link.plain", message="without TLS, whoever listens on the way reads logs and specs; secrets are sealed"
        )
    if node is not None and settings.token is not None:
        log.info("join.unused", message="this node is enrolled already")
    return address


async def _found_address(host: str) -> str:
    """Empty when it cannot be found out soon: after a boot without a network, what this node is to run does not wait for one."""
    try:
        async with asyncio.timeout(_PART_SECONDS):
            return await asyncio.to_thread(source_address, host)
    except TimeoutError:
        return ""


async def _enrol(ground: Ground, address: str) -> None:
    clock = SystemClock()
    async with _survey(ground, "", address, clock) as (_, survey):
        facts = await survey.first_look()
        await enrol(Dialer(ground.settings.endpoint, Backoff()), ground.identity, facts, clock)
    log.info("join.done", node=ground.identity.current.node_id)


async def _node(ground: Ground, address: str, stop: asyncio.Event) -> None:
    clock = SystemClock()
    async with AsyncExitStack() as at_end:
        node_id = ground.identity.current.node_id
        assert node_id is not None, "enrolled before"
        runtime, survey = await at_end.enter_async_context(_survey(ground, node_id, address, clock))
        if not await _unless(stop, survey.first_look()):
            return
        state = await asyncio.to_thread(ground.journal.load)
        book, reports = AssignmentBook(ground.journal, state), ReportBox()
        prober = Prober(runtime, clock, book.changes.add, direct=_direct(ground.settings))
        at_end.push_async_callback(prober.close)
        memory = Memory(ground.journal, state, boot_mark())
        means = _means(ground, runtime, survey, clock)
        reconciler = Reconciler(means, prober, book, reports, memory, survey.engine_changed)

        def send(frame: LogChunk | LogEnd) -> None:  # the link needs the logs first
            link.send(frame)

        logs = LogStreams(runtime, reconciler.engine_id, send, clock.wall)
        at_end.push_async_callback(logs.close)
        node = Node(book, reports, logs, lambda: survey.facts, survey.measure_now)
        link = Link(Dialer(ground.settings.endpoint, Backoff()), ground.identity, node, clock)
        await _work(Parts(survey, reconciler, link), stop)


async def _work(parts: Parts, stop: asyncio.Event) -> None:
    """All parts until `stop`; one that fails takes the others along. Then in order: no new work, the last words, the rest."""
    gc.collect()
    gc.freeze()  # what start-up left behind stays for good and need not be walked again
    try:
        async with asyncio.TaskGroup() as tasks:
            reconciling = tasks.create_task(parts.reconciler.run())
            linking = tasks.create_task(parts.link.run())
            surveying = tasks.create_task(parts.survey.run(parts.reconciler.running, parts.link.send))
            await stop.wait()
            log.info("agent.stopping")
            reconciling.cancel()
            await asyncio.wait([reconciling], timeout=_PART_SECONDS)
            await parts.link.drain(_PART_SECONDS)
            linking.cancel()
            surveying.cancel()
    except* AgentError as group:
        reason = next(error for error in group.exceptions if isinstance(error, AgentError))
    else:
        return
    raise reason


def _means(ground: Ground, runtime: DockerRuntime, survey: Survey, clock: SystemClock) -> Means:
    def free_bytes() -> int | None:
        return disk_usage(survey.data_root)[1] if survey.data_root else None

    real = partial(os.path.realpath, strict=True) if _direct(ground.settings) else _elsewhere
    return Means(runtime, clock, partial(admit, ground.policy, real=real), ground.identity.unseal, free_bytes)


def _direct(settings: Settings) -> bool:
    """Whether the engine is on this machine, and what the agent sees of it is what the engine sees."""
    return settings.docker_host.startswith("unix:")


def _elsewhere(path: str) -> str:
    """A host path of an engine that is reached over a network: what lies there, links above all, cannot be seen from here."""
    raise OSError(ENOENT, "the engine may be on another machine, only one on a unix socket is known not to be")


@asynccontextmanager
async def _survey(
    ground: Ground, node_id: str, address: str, clock: SystemClock
) -> AsyncIterator[tuple[DockerRuntime, Survey]]:
    settings = ground.settings
    find = None if settings.address else partial(source_address, urlsplit(settings.endpoint).hostname or "")
    runtime = DockerRuntime(settings.docker_host, node_id, lambda: survey.address)
    survey = Survey(runtime, clock, address, settings.labels, find)
    try:
        yield runtime, survey
    finally:
        survey.close()
        await runtime.close()


async def _unless(stop: asyncio.Event, work: Coroutine[object, object, object]) -> bool:
    """Whether the work was done; it is given up when the process is told to stop first."""
    working, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _policy(path: Path | None) -> Policy:
    if path is None:
        return Policy()
    try:
        return parse(path.read_text())
    except OSError as error:
        raise SettingsError(f"--policy (ARGOSY_POLICY): {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"--policy (ARGOSY_POLICY): {path}: {error}") from error


def _leave_by_force_after(seconds: float) -> None:
    """A disk or an engine that hangs in the kernel holds up a thread, and with it the end of the process. Everything that must
    be on disk is there by then."""
    timer = threading.Timer(seconds, os._exit, [0])
    timer.daemon = True
    timer.start()
