"""What one session's agent was told, and the next frames that bring it up to date.

The stored set is compared with what was sent, so a wake-up may come too often or stand for many changes. An agent whose set has the
stored number is left in peace; any other gets the complete set once, then deltas. A delta that outgrows a frame becomes a set.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from coordinator.hub.assignments import Built, Recipient, build, parts, tombstone
from coordinator.store import orders
from coordinator.store.database import Store
from coordinator.store.instances import InstanceRecord
from coordinator.store.orders import Keys
from coordinator.store.vault import Vault
from shared.spec.instance import Assignment
from shared.spec.reason import Reason
from shared.wire.codec import FrameError, encode
from shared.wire.frames import AssignmentDelta, AssignmentSet


@dataclass(frozen=True)
class Sending:
    """`refused`: instances that cannot be told to the node, to be rejected in its place. `revoked`: the node was removed."""

    frames: list[bytes] = field(default_factory=list)
    refused: dict[str, Reason] = field(default_factory=dict)
    revoked: bool = False


class Outbox:
    """`held`: the sequence number of the set in the agent's journal."""

    def __init__(
        self, store: Store, vault: Vault, to: Recipient, held: int | None, doomed: Iterable[InstanceRecord]
    ) -> None:
        self._store = store
        self._vault = vault
        self._to = to
        self._held = held
        self._sent: Keys | None = None
        self._needed = False
        self._doomed = {record.id: tombstone(record) for record in doomed}
        self._forget: set[str] = set()
        self.sequence: int | None = None

    def need_set(self) -> None:
        """The agent asks for the complete set, whatever it was sent."""
        self._needed = True

    def forget(self, instance_ids: Iterable[str]) -> None:
        """The node reported these as removed; they are in no stored set."""
        for instance_id in instance_ids:
            self._doomed.pop(instance_id, None)
            self._forget.add(instance_id)

    async def next(self) -> Sending:
        """Frames to send in this order. Raises StoreError, and then nothing is taken as sent."""
        if self._needed:  # cleared before the first wait: one that comes meanwhile counts for the next call
            self._held, self._sent, self._needed = None, None, False
        async with self._store.read() as conn:
            standing = await orders.standing(conn, self._to.node_id)
            if standing is None:
                return Sending(revoked=True)
            stored, keys = standing.sequence, standing.keys
            complete = self._sent is None
            if complete and self._held == stored and not self._doomed:
                self._sent, self.sequence = keys, stored
                complete = False
            known = {} if complete else (self._sent or {})
            changed = await orders.of_instances(conn, [key for key in keys if known.get(key) != keys[key]])
        built = build(self._vault, self._to, changed, complete=complete)
        sending = self._set(stored, built) if complete else self._delta(stored, keys, built)
        if sending is None:
            self.need_set()
            return await self.next()
        self._sent, self.sequence = keys, stored
        self._forget.clear()
        return sending

    def _set(self, stored: int, built: Built) -> Sending:
        pieces = parts([*built.assignments, *self._doomed.values()])
        last = len(pieces) - 1
        frames = [encode(AssignmentSet(stored, part, part == last, piece)) for part, piece in enumerate(pieces)]
        return Sending(frames, built.refused)

    def _delta(self, stored: int, keys: Keys, built: Built) -> Sending | None:
        """None when it does not fit a frame."""
        assert self.sequence is not None
        forget = sorted({*(self._sent or {})} - {*keys} | self._forget)
        if stored == self.sequence and not built.assignments and not forget:
            return Sending(refused=built.refused)
        try:
            frame = encode(self._frame(stored, built.assignments, forget))
        except FrameError:
            return None
        return Sending([frame], built.refused)

    def _frame(self, stored: int, assignments: list[Assignment], forget: list[str]) -> AssignmentDelta:
        assert self.sequence is not None
        limit = 4096
        if len(assignments) > limit or len(forget) > limit:
            raise FrameError(f"more than {limit} changes")
        return AssignmentDelta(self.sequence, stored, assignments, forget)
