"""Bearer tokens: made here, shown once, stored hashed."""

import hashlib
import secrets

PREFIX = "argosy_"
"""The visible mark by which a leaked token is recognised."""
_SHOWN = len(PREFIX) + 6


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Plain SHA-256: the token itself has 256 random bits, so there is nothing to slow a guesser down for."""
    return hashlib.sha256(secret.encode()).hexdigest()


def shown_prefix(secret: str) -> str:
    return secret[:_SHOWN]
