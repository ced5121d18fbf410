"""Join tokens: `argosy1.<token id>.<secret>.<fingerprint of the coordinator's signing key>`.

The fingerprint makes the first contact authenticated both ways: an agent that holds a token knows the one coordinator it may
give the secret to. The coordinator keeps only the secret's hash.
"""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from msgspec import Struct

_PREFIX = "argosy1"


class JoinToken(Struct, frozen=True):
    token_id: str
    secret: bytes
    fingerprint: bytes

    def __str__(self) -> str:
        return f"{_PREFIX}.{self.token_id}.{_text(self.secret)}.{_text(self.fingerprint)}"

    __repr__ = object.__repr__  # never the secret in a log


def new_token(token_id: str, hub_signing_key: bytes) -> JoinToken:
    return JoinToken(token_id, secrets.token_bytes(16), fingerprint(hub_signing_key))


def parse(text: str) -> JoinToken:
    """Raises ValueError with a sentence that does not repeat the token."""
    parts = text.strip().split(".")
    if len(parts) != 4 or parts[0] != _PREFIX:
        raise ValueError(f"a join token has the form {_PREFIX}.<id>.<secret>.<fingerprint>")
    try:
        token = JoinToken(parts[1], _bytes(parts[2]), _bytes(parts[3]))
    except (Base64Error, ValueError) as error:
        raise ValueError("the join token is damaged: was it copied whole?") from error
    if len(token.fingerprint) != 32 or not 1 <= len(token.secret) <= 64 or not 1 <= len(token.token_id) <= 64:
        raise ValueError("the join token is damaged: was it copied whole?")
    return token


def fingerprint(hub_signing_key: bytes) -> bytes:
    return hashlib.sha256(hub_signing_key).digest()


def secret_hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
