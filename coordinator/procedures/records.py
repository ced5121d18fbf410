"""What an id stands for, read within a transaction, and the digest of it.

The audit tells the state of a thing before and after a change by digests, and a conditional update compares the state its caller
saw with the present one. Both look at what people declared: what the system keeps beside it in the same row moves on its own and
would make every comparison fail.
"""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import (
    clusters,
    containers,
    deployments,
    nodes,
    organizations,
    projects,
    registries,
    releases,
    users,
    variables,
)

Read = Callable[[AsyncConnection, str], Awaitable[Any]]

READERS: dict[str, Read] = {
    "org": organizations.get,
    "user": users.get,
    "proj": projects.get,
    "env": projects.get_environment,
    "cluster": clusters.get,
    "node": nodes.get,
    "ctr": containers.get,
    "dep": deployments.get,
    "rel": releases.get,
    "reg": registries.get,
    "sec": variables.get,
}
"""By the prefix of ids."""

_DERIVED = frozenset(
    {
        "version",
        "waiting",
        "epoch",
        "assignment_seq",
        "facts",
        "lost",
        "lost_at",
        "last_seen_at",
        "last_used_at",
        "sealed_key",
    }
)
_SECRET = frozenset({"password", "secret", "token", "hash", "password_hash", "totp_secret", "recovery_hashes"})
_MASK = "***"
_SEALED = "sealed:"
_encoder = msgspec.json.Encoder(order="sorted")


async def read(conn: AsyncConnection, record_id: str) -> Any:
    """The record as it is, None where there is none, or none whose kind is read here."""
    reader = READERS.get(record_id.partition("_")[0])
    return None if reader is None else await reader(conn, record_id)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of what was declared. A concealed secret counts as it rests, so that a change of it shows; one
    in the clear never does: a digest of something guessable is a hint."""
    if value is None:
        return ""
    return sha256(_encoder.encode(_declared(msgspec.to_builtins(value)))).hexdigest()


def state(record: object) -> str:
    """What `If-Match` compares: the generation where declarations are counted, else a digest."""
    generation = getattr(record, "generation", None)
    return str(generation) if isinstance(generation, int) else digest(record)[:16]


def _declared(value: Any) -> Any:
    match value:
        case dict():
            return {key: _field(key, one, value) for key, one in value.items() if key not in _DERIVED}
        case list() | tuple():
            return [_declared(one) for one in value]
        case _:
            return value


def _field(key: str, value: Any, inside: Mapping[str, Any]) -> Any:
    secret = key in _SECRET or (key == "value" and inside.get("secret") is True)
    if secret and isinstance(value, str) and not value.startswith(_SEALED):
        return _MASK
    return _declared(value)
