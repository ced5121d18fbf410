"""Bearer tokens and the secrets of cookies: made here, shown once, stored hashed.

Every token begins with a mark that says what it is, so that scanners of code and logs recognise a leaked one, and a person knows
whom to ask: `argosy_pat_` is somebody's own, `argosy_svc_` an organisation's.
"""

import hashlib
import hmac
import secrets
from typing import Literal

PREFIX = "argosy_"
TokenKind = Literal["pat", "svc"]
_RECOGNISED_BY = 6
"""Characters after the mark that lists show; the 37 others are enough of a secret."""


def new_secret(kind: TokenKind = "pat") -> str:
    return f"{PREFIX}{kind}_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> str:
    """Plain SHA-256: the token itself has 256 random bits, so there is nothing to slow a guesser down for."""
    return hashlib.sha256(secret.encode()).hexdigest()


def shown_prefix(secret: str) -> str:
    return secret[: len(f"{PREFIX}pat_") + _RECOGNISED_BY]


def csrf_token(secret: str) -> str:
    """What a page of ours shows to prove that it is one, for the session with this secret."""
    return hmac.new(secret.encode(), b"argosy csrf", hashlib.sha256).hexdigest()
