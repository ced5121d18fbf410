"""What the coordinator fetches from an identity provider: small JSON documents, within a time limit, from where it was told to.

Redirects are not followed: a provider's documents are where its configuration says, and nowhere else.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

TIMEOUT_SECONDS = 10.0
MAX_BYTES = 1024 * 1024


class FetchError(Exception):
    """The message is a sentence for the operator and holds no secret."""


class Fetcher:
    """Connections are made on first use and kept. `close` ends them."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def get(self, url: str, bearer: str = "") -> dict[str, Any]:
        """Raises FetchError."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return await self._json("GET", url, headers, b"")

    async def post_form(self, url: str, body: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """Raises FetchError."""
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return await self._json("POST", url, form, body.encode())

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _json(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        client = await self._connected()
        sent = {"Accept": "application/json", **headers}
        body = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async with client.stream(method, url, headers=sent, content=content or None) as response:
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > MAX_BYTES:
                            raise FetchError(f"{_place(url)} answered with more than {MAX_BYTES} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise FetchError(f"{_place(url)} does not answer: {error or type(error).__name__}") from error
        return _object(url, response.status_code, bytes(body))

    async def _connected(self) -> httpx.AsyncClient:
        async with self._making:
            if self._client is None:
                trust = await asyncio.to_thread(ssl.create_default_context)  # reads the machine's certificates
                self._client = httpx.AsyncClient(verify=trust, timeout=TIMEOUT_SECONDS, follow_redirects=False)
            return self._client


def _object(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FetchError(f"{_place(url)} answered {status} with something that is not JSON") from error
    if status != 200 or not isinstance(document, dict):
        reason = document.get("error") if isinstance(document, dict) else None
        raise FetchError(f"{_place(url)} answered {status}" + (f": {reason}" if isinstance(reason, str) else ""))
    return document


def _place(url: str) -> str:
    return url.partition("?")[0]
