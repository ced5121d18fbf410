"""The second factor: codes of an authenticator (RFC 6238), and recovery codes for when it is lost.

Either opens something once. A code is accepted one time step early or late, for clocks differ; no step up to the last one used is
accepted again, so what somebody saw being typed is worth nothing.
"""

import hashlib
import hmac
import secrets
from base64 import b32encode

import pyotp

from coordinator.store import rekey, users
from coordinator.store.users import CredentialsRecord
from coordinator.store.vault import Vault
from coordinator.store.writer import Tx

ISSUER = "Argosy"
STEP_SECONDS = 30
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10
_RECOVERY_LENGTH = _RECOVERY_BYTES * 8 // 5
"""80 random bits: a plain hash of them cannot be searched."""


def new_secret() -> str:
    return pyotp.random_base32()


def uri(secret: str, email: str) -> str:
    """What an authenticator reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def step_of(secret: str, code: str, now: float) -> int | None:
    """The time step that the code is of, if any near `now`."""
    totp, present = pyotp.TOTP(secret), int(now) // STEP_SECONDS
    found = None
    for step in (
        present - 1,
        present,
        present + 1,
    ):  # all of them each time: which one it was takes no time to find out
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            found = step
    return found


def new_recovery_codes() -> list[str]:
    plain = [b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(code[at : at + 4] for at in range(0, _RECOVERY_LENGTH, 4)) for code in plain]


def recovery_hash(code: str) -> str:
    return hashlib.sha256(_bare(code).encode()).hexdigest()


async def take(tx: Tx, vault: Vault, record: CredentialsRecord, code: str) -> bool:
    """Whether the code is right and was never used; now it was. Raises VaultError."""
    bare = _bare(code)
    if len(bare) == _RECOVERY_LENGTH:
        return record.totp_confirmed_at is not None and await users.take_recovery(tx, record.id, recovery_hash(bare))
    assert record.totp_secret is not None, "asked only where there is one"
    secret = vault.unwrap(rekey.totp_name(record.id), record.totp_secret).decode()
    step = step_of(secret, bare, tx.now)
    return step is not None and await users.take_step(tx, record.id, step)


def _bare(code: str) -> str:
    """As people type it: with or without blanks, dashes and capitals."""
    return code.replace(" ", "").replace("-", "").lower()
