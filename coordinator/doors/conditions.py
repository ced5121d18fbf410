"""Conditional calls: an update only of what its caller has seen, an answer only when it is another than the caller has.

An ETag has two parts, `"<state>-<content>"`: the state of what was declared (a container's generation), and a hash of this very
answer. `If-None-Match` compares both. `If-Match` compares the state alone: an instance that became healthy meanwhile is no reason
to refuse an update, another update is. The comparison is made in the transaction of the update, so of two that saw the same state
only one is carried out.
"""

import re
from collections.abc import Awaitable, Callable
from hashlib import blake2b

from coordinator.errors import BadRequest, PreconditionFailed
from coordinator.procedures import records
from coordinator.procedures.context import Context
from coordinator.procedures.table import Procedure
from coordinator.store.database import Tx

Guard = Callable[[Tx], Awaitable[None]]
_TAG = re.compile(r'\s*(?:W/)?"(?P<state>[A-Za-z0-9]+)(?:-[A-Za-z0-9]*)?"\s*')


def guard(procedure: Procedure, context: Context, if_match: str) -> Guard:
    """Raises BadRequest for what is no list of our tags. The guard raises PreconditionFailed."""
    if procedure.scope is None:
        raise BadRequest(f"If-Match: {procedure.name} changes nothing that has an ETag")
    wanted = None if if_match.strip() == "*" else _states(if_match)

    async def unchanged(tx: Tx) -> None:
        record_id = getattr(context.record, "id", None)
        current = await records.read(tx.conn, record_id) if isinstance(record_id, str) else None
        if current is None:
            raise PreconditionFailed(f"If-Match: what {procedure.name} changes has no ETag, or is gone")
        if wanted is not None and records.state(current) not in wanted:
            raise PreconditionFailed("If-Match: it was changed since; read it again")

    return unchanged


def etag(state: str, body: bytes) -> str:
    return f'"{state}-{blake2b(body, digest_size=8).hexdigest()}"'


def has_changed(if_none_match: str | None, tag: str) -> bool:
    """Whether the caller of a GET needs the body. A proxy that compresses makes a tag weak: the content is the same."""
    if if_none_match is None:
        return True
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return tag not in known and "*" not in known


def _states(if_match: str) -> set[str]:
    found = [_TAG.fullmatch(one) for one in if_match.split(",")]
    states = {one["state"] for one in found if one is not None}
    if len(if_match) > 1024 or not all(found):
        raise BadRequest('If-Match: must be ETags as answers carry them, such as "7-3f2a", or *')
    return states
