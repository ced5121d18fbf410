"""Nodes that serve logs: the agent's own log streams over engines that are lists of lines, joined to a broker without a network."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from agent.logs.streams import LogStreams
from coordinator.logs.broker import LogBroker
from shared.wire.frames import HubFrame, LogCancel, LogChunk, LogCredit, LogEnd, LogLine, LogSubscribe


@dataclass
class EngineLog:
    """One engine container's log, in the order of its file."""

    lines: list[LogLine] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, *lines: LogLine) -> None:
        self.lines.extend(lines)
        news, self.news = self.news, asyncio.Event()
        news.set()


class LogNodes:
    """A `Sender`. `logs` are by instance, which is also the engine's id here. Nodes in `away` are not connected."""

    def __init__(self, broker: LogBroker) -> None:
        self.broker = broker
        self.logs: dict[str, EngineLog] = {}
        self.away: set[str] = set()
        self.sent: list[tuple[str, HubFrame]] = []
        self._nodes: dict[str, LogStreams] = {}
        broker.attach(self)

    def log(self, instance_id: str) -> EngineLog:
        return self.logs.setdefault(instance_id, EngineLog())

    def send(self, node_id: str, frame: LogSubscribe | LogCredit | LogCancel) -> bool:
        if node_id in self.away:
            return False
        self.sent.append((node_id, frame))
        streams = self._node(node_id)
        match frame:
            case LogSubscribe():
                streams.subscribe(frame)
            case LogCredit():
                streams.credit(frame)
            case LogCancel():
                streams.cancel(frame)
        return True

    def asked(self) -> list[str]:
        return [frame.instance_id for _, frame in self.sent if isinstance(frame, LogSubscribe)]

    def leave(self, node_id: str) -> None:
        self.away.add(node_id)
        self._node(node_id).cancel_all()
        self.broker.left(node_id)

    def come_back(self, node_id: str) -> None:
        self.away.discard(node_id)
        self.broker.joined(node_id)

    async def logs_of(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        """As the engine does: `tail` counts from the end of the file, `since` finds the first line that is not older."""
        log = self.log(engine_id)
        at = 0 if tail is None else max(0, len(log.lines) - tail)
        while since is not None and at < len(log.lines) and log.lines[at].at_ns / 1e9 < since:
            at += 1
        while True:
            news = log.news
            while at < len(log.lines):
                line = log.lines[at]
                at += 1
                if until is not None and line.at_ns / 1e9 > until:
                    return
                yield line
            if not follow:
                return
            await news.wait()

    async def close(self) -> None:
        for streams in self._nodes.values():
            await streams.close()

    def _node(self, node_id: str) -> LogStreams:
        if node_id not in self._nodes:

            def emit(frame: LogChunk | LogEnd) -> None:
                if node_id in self.away:
                    return
                if isinstance(frame, LogChunk):
                    self.broker.chunk(node_id, frame)
                else:
                    self.broker.end(node_id, frame)

            self._nodes[node_id] = LogStreams(_Source(self), lambda one: one if one in self.logs else None, emit)
        return self._nodes[node_id]


@dataclass
class _Source:
    nodes: LogNodes

    def logs(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        return self.nodes.logs_of(engine_id, tail=tail, since=since, until=until, follow=follow)
