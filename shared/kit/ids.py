"""Opaque, prefixed, URL-safe ids: 9 characters of time, so that ids sort by creation, then 60 random bits."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread


def new_id(prefix: str) -> str:
    millis = time.time_ns() // 1_000_000
    stamp = "".join(_ALPHABET[(millis >> shift) & 31] for shift in range(40, -1, -5))
    return f"{prefix}_{stamp}{''.join(secrets.choice(_ALPHABET) for _ in range(12))}"
