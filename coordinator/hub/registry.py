"""Which node is connected, and the way to it."""

from collections.abc import Iterator
from typing import Protocol

from shared.wire.closing import CloseReason
from shared.wire.codec import encode
from shared.wire.frames import HubFrame


class Session(Protocol):
    node_id: str

    @property
    def sequence(self) -> int | None:
        """Of the assignment set as last sent; None before the first."""

    def send_stream(self, data: bytes) -> bool: ...

    def close(self, reason: CloseReason, message: str = "", retry_after: float = 0.0) -> None: ...

    def wake(self) -> None: ...


class NodeRegistry:
    """At most one session a node: the newest."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def put(self, session: Session) -> Session | None:
        """The session that was the node's until now."""
        older = self._sessions.get(session.node_id)
        self._sessions[session.node_id] = session
        return older

    def remove(self, session: Session) -> bool:
        """Whether it was still the node's newest."""
        if self._sessions.get(session.node_id) is not session:
            return False
        del self._sessions[session.node_id]
        return True

    def get(self, node_id: str) -> Session | None:
        return self._sessions.get(node_id)

    def is_connected(self, node_id: str) -> bool:
        return node_id in self._sessions

    def send(self, node_id: str, frame: HubFrame) -> bool:
        """Behind everything that is more important. False when the node is not connected or its lane is full."""
        session = self._sessions.get(node_id)
        return session is not None and session.send_stream(encode(frame))

    def close(self, node_id: str, reason: CloseReason, message: str = "") -> bool:
        """End the node's session, as when it was removed from its cluster. False when it has none."""
        session = self._sessions.get(node_id)
        if session is None:
            return False
        session.close(reason, message)
        return True

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)
