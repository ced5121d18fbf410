"""An agent's link with everything behind it real but its logs, and a server in front of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from agent.identity import IdentityFile
from agent.journal.journal import Journal, JournalState
from agent.link.dialer import Dialer, Link, enrol
from agent.link.node import Node
from agent.reconcile.book import AssignmentBook
from agent.reconcile.reports import ReportBox
from shared.kit.backoff import Backoff
from shared.kit.clock import SystemClock
from shared.spec.instance import Assignment, InstanceReport, Phase
from shared.spec.node import NodeFacts
from shared.spec.reason import Reason
from shared.wire import frames
from shared.wire.join import JoinToken
from tests.fakes.hub import FakeHub, HubServer, ServedSession

FACTS = NodeFacts(hostname="hafen-1", labels={"zone": "nord"})
CLOCK = SystemClock()


@dataclass
class FakeLogs:
    asked: list[object] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def subscribe(self, frame: frames.LogSubscribe) -> None:
        self._note(frame)

    def credit(self, frame: frames.LogCredit) -> None:
        self._note(frame)

    def cancel(self, frame: frames.LogCancel) -> None:
        self._note(frame)

    def cancel_all(self) -> None:
        self._note("all")

    def _note(self, what: object) -> None:
        self.asked.append(what)
        self.news.set()

    async def wait_for(self, what: object) -> None:
        while what not in self.asked:
            self.news.clear()
            await self.news.wait()


class World:
    """One agent's link and one server, and what a test needs of both."""

    def __init__(self, server: HubServer, journal: Journal, state_dir: Path, backoff: Backoff) -> None:
        self.server = server
        self.hub = server.hub
        self.state_dir = state_dir
        self.dialer = Dialer(server.endpoint, backoff)
        self.journal = journal
        self.book = AssignmentBook(self.journal, self.journal.load())
        self.reports = ReportBox()
        self.logs = FakeLogs()
        self.node = Node(self.book, self.reports, self.logs, lambda: FACTS, lambda: None)

    async def identity(self, token: JoinToken | None = None) -> IdentityFile:
        return await asyncio.to_thread(IdentityFile.open, self.state_dir, token)

    async def enrol(self) -> IdentityFile:
        identity = await self.identity(self.hub.token())
        await enrol(self.dialer, identity, FACTS, CLOCK)
        return identity

    async def ready(self) -> ServedSession:
        """A session that stands on both sides: the agent's first report is there."""
        served = await self.server.session()
        self.reports.put(report("inst_first"))
        await served.wait_for(frames.InstanceReports)
        return served

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[Link]:
        link = Link(self.dialer, await self.enrol(), self.node, CLOCK)
        running = asyncio.create_task(link.run())
        try:
            yield link
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def link_world(state_dir: Path) -> AsyncIterator[World]:
    async with HubServer(FakeHub()).running() as server:
        journal = await asyncio.to_thread(Journal, state_dir / "journal.db")
        yield World(server, journal, state_dir, Backoff(base=0.001, ceiling=0.01))
        await asyncio.to_thread(journal.close)


def report(instance_id: str, attempt: int = 1, phase: Phase = Phase.RUNNING, message: str = "") -> InstanceReport:
    return InstanceReport(instance_id, attempt, phase, reason=Reason("starting", message) if message else None)


def assignment(instance_id: str) -> Assignment:
    return Assignment(instance_id, "ctr_1", "web", 0, 1, "0123456789abcdef")


def read_again(state_dir: Path) -> JournalState:
    with closing(Journal(state_dir / "journal.db")) as journal:
        return journal.load()


def told(served: ServedSession) -> list[str]:
    return [report.instance_id for batch in served.of(frames.InstanceReports) for report in batch.reports]
