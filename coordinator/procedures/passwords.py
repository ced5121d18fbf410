"""Passwords: argon2id, away from the event loop, a few at a time.

One hash takes tens of milliseconds of a processor and 64 MiB: they run in threads of their own, so that neither requests nor the
database's threads wait for them, and so that a flood of sign-ins costs bounded memory. Where there is no account, a hash
nobody knows the password of is verified instead: the answer takes as long.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from coordinator.errors import BadRequest, TooManyRequests

SHORTEST, LONGEST = 10, 256
LANES = 2
MOST_WAITING = 64
_LEAST_CHARACTERS = 4
"""Fewer different characters than this is a pattern, however long."""
_COMMON = frozenset(
    """
    0123456789 0987654321 1234567890 1234567890a 12345678910 123456789a 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc
    9876543210 abc1234567 abcd123456 abcdefghij admin12345 admin123456 adminadmin administrator argosy1234
    argosyadmin argosyargosy asdfghjkl1 asdfghjklp baseball12 changeme123 changemenow correcthorsebatterystaple
    default123 football12 football123 helloworld iloveyou12 iloveyou123 iloveyou1234 letmein123 letmeinnow
    michael123 monkey1234 mypassword passw0rd12 passw0rd123 password01 password10 password12 password123
    password1234 password12345 password123456 princess12 princess123 q1w2e3r4t5 q1w2e3r4t5y6 qazwsxedcrfv
    qwerty1234 qwerty12345 qwerty123456 qwertyuiop qwertyuiop123 rootroot12 secret1234 starwars12 sunshine12
    sunshine123 superman12 superman123 test123456 testtest12 trustno1trustno1 welcome123 welcome1234 whatever12
    zaq12wsxcde3 zxcvbnm123 zxcvbnmasd
    """.split()  # noqa: SIM905 — read as words
)
T = TypeVar("T")


class Passwords:
    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(LANES, thread_name_prefix="argon2")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Raises TooManyRequests when too many wait already."""
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def matches(self, known: str | None, password: str) -> bool:
        """`known` None: there is nothing to match, which takes as long to find out. Raises TooManyRequests."""
        return await self._run(lambda: self._verify(known, _normal(password)))

    def outdated(self, known: str) -> bool:
        """Whether it was made with other parameters than new ones are."""
        return self._hasher.check_needs_rehash(known)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _decoy(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe(32))

    def _verify(self, known: str | None, password: str) -> bool:
        decoy = self._decoy  # made on the first call of either kind: none of the two is ever the slower one
        try:
            return self._hasher.verify(known or decoy, password) and known is not None
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise TooManyRequests("too many people are signing in at this moment: try again", 1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def demand(password: str, email: str) -> None:
    """Raises BadRequest unless it is a password worth having. Length is what counts; no mix of characters is asked for."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadRequest(f"password: must have {SHORTEST} to {LONGEST} characters")
    plain = _normal(password).casefold().strip()
    if plain in (email.casefold(), email.partition("@")[0].casefold()):
        raise BadRequest("password: must not be the e-mail address")
    if plain in _COMMON or len(set(plain)) < _LEAST_CHARACTERS:
        raise BadRequest("password: is one of the first that anybody would try")


def _normal(password: str) -> str:
    """The same characters may arrive composed or not, depending on the keyboard."""
    return unicodedata.normalize("NFKC", password)
