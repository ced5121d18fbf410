"""The public keys of an OpenID issuer, kept and renewed.

Issuers rotate keys without a word: a token that names an unknown key makes us look again, but not more often than once in a while,
or anybody could make us call the issuer with every request. Keys grow old and are fetched anew, so that a withdrawn one
stops counting; when that fails, the known ones go on for the time being.
"""

import asyncio
from typing import Any

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from coordinator.procedures.fetching import Fetcher, FetchError
from shared.kit.clock import Clock

OLD_SECONDS = 600.0
AGAIN_SECONDS = 30.0
DROPPED_SECONDS = 86400.0
"""Keys that could not be renewed for so long count no more."""

log = structlog.get_logger("issuer")


class IssuerKeys:
    """`keys_url` empty: where the issuer's discovery document says."""

    def __init__(self, issuer: str, fetcher: Fetcher, clock: Clock, keys_url: str = "") -> None:
        self._issuer = issuer
        self._fetcher = fetcher
        self._clock = clock
        self._keys_url = keys_url
        self._keys: KeySet | None = None
        self._known: frozenset[str | None] = frozenset()
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()

    async def for_key(self, key_id: str | None) -> KeySet:
        """The keys, renewed if that is due or `key_id` is not among them. Raises FetchError when none are known."""
        if self._wanting(key_id):
            async with self._fetching:
                if self._wanting(key_id):  # whoever waited finds it done
                    await self._renew()
        if self._keys is None or self._clock.monotonic() - self._fetched_at > DROPPED_SECONDS:
            raise FetchError(f"the keys of {self._issuer} are not known")
        return self._keys

    def _wanting(self, key_id: str | None) -> bool:
        now = self._clock.monotonic()
        if self._tried_at is not None and now - self._tried_at < AGAIN_SECONDS:
            return False
        unknown = key_id is not None and key_id not in self._known
        return self._keys is None or unknown or now - self._fetched_at >= OLD_SECONDS

    async def _renew(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            url = self._keys_url or (await discover(self._fetcher, self._issuer))["jwks_uri"]
            keys = _read(await self._fetcher.get(url))
        except FetchError as error:
            log.warning("an issuer's keys cannot be fetched", issuer=self._issuer, reason=str(error))
            return
        self._keys, self._known = keys, frozenset(key.kid for key in keys.keys)
        self._fetched_at = self._clock.monotonic()


async def discover(fetcher: Fetcher, issuer: str) -> dict[str, Any]:
    """The issuer's own description of itself. Raises FetchError, also when it is somebody else's."""
    document = await fetcher.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if document.get("issuer") != issuer:
        raise FetchError(f"the discovery document of {issuer} says it belongs to {document.get('issuer')!r}")
    for name in ("jwks_uri", "authorization_endpoint", "token_endpoint"):
        if not isinstance(document.get(name), str):
            raise FetchError(f"the discovery document of {issuer} names no {name}")
    return document


def _read(document: dict[str, Any]) -> KeySet:
    """The keys that are of a kind we know; an issuer may have others besides."""
    listed = document.get("keys")
    keys = []
    for one in listed if isinstance(listed, list) else []:
        try:
            keys += KeySet.import_key_set({"keys": [one]}).keys
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    if not keys:
        raise FetchError("the issuer's key document holds no usable key")
    return KeySet(keys)
