"""The audit chain: every entry's hash covers the hash before it, so that none can be changed, removed or slipped in unseen.

Whoever can write the database could compute hashes as well as we do; the signature, by a key the database holds only encrypted, is
what they cannot make.
"""

from dataclasses import dataclass
from hashlib import sha256

import msgspec

GENESIS = b"\0" * 32
"""What the first entry of a chain names as the hash before it."""
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Link:
    """What the hash of an entry covers, in this order. `detail` is the JSON text as stored: encoding it anew might differ."""

    chain: str
    sequence: int
    id: str
    at: float
    actor: str
    action: str
    resource_type: str
    resource: str
    before: str
    after: str
    detail: str
    address: str


@dataclass(frozen=True)
class Checkpoint:
    """Where a chain goes on from, once its entries up to `sequence` were removed: what the signature beside it covers."""

    chain: str
    sequence: int
    hash: bytes
    at: float


def checkpoint_digest(checkpoint: Checkpoint) -> bytes:
    """Begins as no entry's does: a signature of one can never stand for the other."""
    return sha256(b"checkpoint\n" + _encoder.encode(checkpoint)).digest()


def digest(previous: bytes, link: Link) -> bytes:
    """JSON keeps the fields apart: no two different entries have the same text."""
    return sha256(previous + _encoder.encode(link)).digest()
