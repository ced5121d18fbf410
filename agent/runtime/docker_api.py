"""The connection to a Docker Engine: aiodocker for what it speaks, plain streams for what it would buffer, and every failure in the
agent's words.

Streams (events, logs, pulls) are read here and not through aiodocker, which decodes them entry by entry and leaves the
connection of an abandoned one open: the engine would go on pulling for nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, TypeGuard

import aiohttp
from aiodocker import Docker, DockerError

from agent.core.faults import EngineUnreachable, RuntimeFault, Unanswered
from agent.runtime.docker_faults import Doing, fault
from shared.spec.reason import ENGINE_ERROR

CALL_SECONDS = 30.0
"""For every call the engine answers at once."""
_NO_CONNECTION = 900
"""How aiodocker numbers a connection that failed; the engine has no such status."""
_UNIX = "unix://"
_MAX_JSON_LINE = 4 * 2**20


class EngineApi:
    """Connects when first used and again whenever needed, so the engine may come, go and change its version."""

    def __init__(self, docker_host: str) -> None:
        self._docker_host = docker_host
        self._docker: Docker | None = None
        self._connector: aiohttp.BaseConnector | None = None

    @asynccontextmanager
    async def ask(self, doing: Doing, timeout: float) -> AsyncIterator[Docker]:
        """For calls that answer at once. Raises RuntimeFault; a DockerError the caller expects is the caller's to catch. The
        answer is to be read inside: one that is none of Docker's is a fault of the engine."""
        try:
            async with asyncio.timeout(timeout):
                yield self._client()
        except TimeoutError as error:
            raise Unanswered(timeout) from error
        except (DockerError, aiohttp.ClientError, OSError) as error:
            raise self.explain(error, doing) from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"the engine's answer cannot be read: {type(error).__name__}: {error}"
            raise RuntimeFault(ENGINE_ERROR, message, temporary=True) from error

    @asynccontextmanager
    async def ask_whole(self, timeout: float) -> AsyncIterator[Docker]:
        """For calls about the whole engine: one that does not answer them, or not as Docker does, is out of reach."""
        try:
            async with self.ask("other", timeout) as docker:
                yield docker
        except EngineUnreachable:
            raise
        except RuntimeFault as fault:
            raise self._lost(fault.message) from fault

    def stream(self, path: str, params: Mapping[str, str], *, patience: float) -> "EngineStream":
        return EngineStream(self, "GET", path, params, "other", patience)

    def post(self, path: str, params: Mapping[str, str], *, patience: float, doing: Doing) -> "EngineStream":
        return EngineStream(self, "POST", path, params, doing, patience)

    async def begin(self, stream: "EngineStream") -> aiohttp.ClientResponse:
        docker = self._client()
        if docker.api_version == "auto":
            await docker.version()  # settles it
        url = f"{docker.docker_host}/{docker.api_version}/{stream.path}"
        return await docker.session.request(
            stream.method, url, params=stream.params, headers=stream.headers, json=stream.body
        )

    def explain(self, error: DockerError | aiohttp.ClientError | OSError, doing: Doing) -> RuntimeFault:
        if isinstance(error, DockerError):
            return (
                self._lost(_cause(error))
                if error.status == _NO_CONNECTION
                else fault(error.status, error.message, doing)
            )
        return self._lost(str(error) or type(error).__name__)

    async def close(self) -> None:
        docker, self._docker = self._docker, None
        connector, self._connector = self._connector, None
        if docker is not None:
            await docker.close()
        if connector is not None:
            await connector.close()

    def _lost(self, why: str) -> EngineUnreachable:
        if self._docker is not None:
            self._docker.api_version = "auto"  # it may come back as another version
        return EngineUnreachable(f"the Docker Engine at {self._docker_host} does not answer: {why}")

    def _client(self) -> Docker:
        if self._docker is None:
            if self._docker_host.startswith(_UNIX):
                # No limit: a hundred followed logs must not keep a stop waiting.
                self._connector = aiohttp.UnixConnector(self._docker_host.removeprefix(_UNIX), limit=0)
            self._docker = Docker(self._docker_host, connector=self._connector)
            if self._connector is not None:
                self._docker.docker_host = f"{_UNIX}localhost"  # aiodocker sets it so only with its own connector
        return self._docker


class EngineStream:
    """An answer read as it comes. Leaving the block closes the connection, which ends the work for it in the engine too. It
    raises TimeoutError when the answer does not begin within `patience` seconds; how long its reader waits is the reader's own
    matter. A class and not a generator, so that a log abandoned at shutdown is closed once."""

    def __init__(
        self, api: EngineApi, method: str, path: str, params: Mapping[str, str], doing: Doing, patience: float
    ) -> None:
        self.method = method
        self.path = path
        self.params = params
        self.headers: dict[str, str] = {}
        self.body: Any = None
        self._api = api
        self._doing = doing
        self._patience = patience
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.StreamReader:
        try:
            async with asyncio.timeout(self._patience):
                self._response = await self._api.begin(self)
                if self._response.status >= 400:
                    raise DockerError(self._response.status, await _refusal(self._response))
        except BaseException as error:
            self._close()
            if _is_engines(error):
                raise self._api.explain(error, self._doing) from error
            raise
        return self._response.content

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if error is not None and _is_engines(error):
            raise self._api.explain(error, self._doing) from error

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()


def _is_engines(error: BaseException) -> TypeGuard[DockerError | aiohttp.ClientError | OSError]:
    """TimeoutError is an OSError too, but one of somebody's patience, not of the connection."""
    return isinstance(error, DockerError | aiohttp.ClientError | OSError) and not isinstance(error, TimeoutError)


async def json_lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """The engine's streams of JSON, one object a line. Raises ValueError for a line beyond all measure."""
    rest = b""
    while data := await content.readany():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _MAX_JSON_LINE:
            raise ValueError(f"a line of more than {_MAX_JSON_LINE} bytes")
    if rest.strip():
        yield rest


@contextmanager
def tolerating(*statuses: int) -> Iterator[None]:
    """The engine's answers that mean "it is so already"."""
    try:
        yield
    except DockerError as error:
        if error.status not in statuses:
            raise


async def _refusal(response: aiohttp.ClientResponse) -> str:
    if response.content_type == "application/json":
        return str((await response.json()).get("message", ""))
    return await response.text()


def _cause(error: DockerError) -> str:
    """aiodocker wraps the reason in brackets behind its own sentence."""
    return error.message.partition(" [")[2].removesuffix("]") or error.message
