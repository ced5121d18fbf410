"""Drains that are POSTs: Loki, OTLP and plain JSON lines differ in path, body and what an answer means."""

import asyncio
import base64
import contextlib
import gzip
import ssl
from email.utils import parsedate_to_datetime
from typing import assert_never
from urllib.parse import urlsplit, urlunsplit

import httpx

from coordinator import VERSION
from coordinator.logs.drains import loki, ndjson, otlp
from coordinator.logs.drains.lines import Entry
from coordinator.logs.drains.targets import DeliveryError, Refused, addresses, plain
from coordinator.store.log_drains import DrainConfig, DrainSecret, DrainType

TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_ANSWER_BYTES = 64 * 1024
_TOLD = 300
_HOPELESS = {400, 406, 415, 422}
"""The lines or their form are refused. Anything else, wrong credentials too, is worth another try: somebody may mend it."""


class HttpTarget:
    def __init__(self, kind: DrainType, config: DrainConfig, secret: DrainSecret, context: ssl.SSLContext) -> None:
        self._kind = kind
        self._config = config
        self._secret = secret
        self._url = _url(kind, config.url)
        self._headers = self._fixed_headers()
        timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
        # No proxy of the environment, and no redirects: lines go where the drain says and nowhere else.
        self._client = httpx.AsyncClient(verify=context, timeout=timeout, trust_env=False, follow_redirects=False)

    async def send(self, entries: list[Entry]) -> Refused:
        body = await asyncio.to_thread(self._encode, entries)  # half a megabyte of text takes a few milliseconds
        try:
            async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                status, headers, answer = await self._post(body)
        except httpx.TimeoutException as error:
            raise DeliveryError(f"no answer from {self._host}: {_why(error)}") from error
        except TimeoutError as error:
            raise DeliveryError(f"no whole answer from {self._host} in {2 * TIMEOUT_SECONDS:g} seconds") from error
        except (httpx.HTTPError, OSError) as error:
            raise DeliveryError(plain(self._secret, f"{self._host}: {_why(error)}")) from error
        if not 200 <= status < 300:
            raise self._refusal(status, headers, answer)
        return self._rejected(answer)

    async def close(self) -> None:
        await self._client.aclose()

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc

    async def _post(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        response = await self._reach(body)
        try:
            answer = b""
            async for part in response.aiter_bytes():
                answer += part
                if len(answer) > _ANSWER_BYTES:  # enough is known; the connection goes with the rest
                    break
            return response.status_code, response.headers, answer[:_ANSWER_BYTES]
        finally:
            await response.aclose()

    async def _reach(self, body: bytes) -> httpx.Response:
        """At the first of its addresses that takes the connection."""
        url = httpx.URL(self._url)
        host = url.raw_host.decode("ascii").strip("[]")
        *others, last = await addresses(host, url.port or (443 if url.scheme == "https" else 80))
        for address in others:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send_to(address, host, url, body)
        return await self._send_to(last, host, url, body)

    async def _send_to(self, address: str, host: str, url: httpx.URL, body: bytes) -> httpx.Response:
        """The other side is told, and proves, its name all the same."""
        headers = {**self._headers, "Host": url.netloc.decode("ascii")}
        extensions = {"sni_hostname": host} if url.scheme == "https" else {}
        target = url.copy_with(host=address)
        request = self._client.build_request("POST", target, content=body, headers=headers, extensions=extensions)
        return await self._client.send(request, stream=True)

    def _encode(self, entries: list[Entry]) -> bytes:
        labels = self._config.labels
        match self._kind:
            case "loki":
                body = loki.encode(entries, labels)
            case "otlp":
                body = otlp.encode(entries, labels, self._config.encoding)
            case "http":
                body = ndjson.encode(entries, labels)
            case "syslog":
                raise AssertionError("syslog has a target of its own")
            case _:
                assert_never(self._kind)
        return gzip.compress(body, 5, mtime=0) if self._config.gzip else body

    def _fixed_headers(self) -> dict[str, str]:
        headers = {"Content-Type": self._content_type(), "User-Agent": f"argosy/{VERSION}", "Accept": "*/*"}
        if self._config.gzip:
            headers["Content-Encoding"] = "gzip"
        credential = self._secret.credential
        match self._config.auth:
            case "bearer":
                headers["Authorization"] = f"Bearer {credential}"
            case "basic":
                pair = base64.b64encode(f"{self._config.username}:{credential}".encode()).decode()
                headers["Authorization"] = f"Basic {pair}"
            case "none":
                pass
        return headers | self._secret.headers

    def _content_type(self) -> str:
        match self._kind:
            case "otlp":
                return otlp.CONTENT_TYPES[self._config.encoding]
            case "loki":
                return loki.CONTENT_TYPE
            case _:
                return ndjson.CONTENT_TYPE

    def _refusal(self, status: int, headers: httpx.Headers, answer: bytes) -> DeliveryError:
        said = " ".join(answer.decode("utf-8", "replace").split())[:_TOLD]
        message = plain(self._secret, f"{self._host} answered {status}{f': {said}' if said else ''}")
        return DeliveryError(
            message, hopeless=status in _HOPELESS, too_large=status == 413, retry_after=_retry_after(headers)
        )

    def _rejected(self, answer: bytes) -> Refused:
        if self._kind != "otlp":
            return Refused()
        count, said = otlp.rejected(answer, self._config.encoding)
        return Refused(max(0, count), plain(self._secret, f"{self._host} refused {count} records: {said[:_TOLD]}"))


def _url(kind: DrainType, url: str) -> str:
    """Loki and OTLP are usually named by their base address; a path given is taken as it is."""
    parsed = urlsplit(url)
    if parsed.path.strip("/"):
        return url
    path = {"loki": loki.PATH, "otlp": otlp.PATH}.get(kind, "/")
    return urlunsplit(parsed._replace(path=path))


def _why(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    return text if not isinstance(cause, OSError | ssl.SSLError) or str(cause) in text else f"{text} ({cause})"


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds; a date is taken relative to the answer's own, so that no clocks are compared."""
    value = headers.get("retry-after", "")
    if value.isdecimal():
        return min(float(value), 3600.0)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return min(max(0.0, wait.total_seconds()), 3600.0)
