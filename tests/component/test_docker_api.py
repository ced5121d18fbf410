"""The Docker runtime against an engine that misbehaves as real ones rarely do on demand: silent, broken off, another version."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from agent.core.faults import EngineUnreachable, RuntimeFault, Unanswered
from agent.runtime import docker, docker_api, docker_pull
from agent.runtime.base import LABEL_NODE
from agent.runtime.docker import DockerRuntime
from shared.spec import reason
from shared.spec.instance import InstanceSecrets

NONE = InstanceSecrets()
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Engine:
    """Speaks just enough to be talked to; `answers` by the last part of the path."""

    def __init__(self) -> None:
        self.api_version = "1.41"
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.released = asyncio.Event()
        self.abandoned = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": self.api_version})
        given = self.answers.get(request.path.rpartition("/")[2])
        if given is not None:
            return await given(request)
        return web.json_response({"message": "no such thing"}, status=404)

    async def hang(self, request: web.Request) -> web.StreamResponse:
        await self.released.wait()
        return web.Response()

    def saying(self, *lines: object, then: Answer | None = None) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for line in lines:
                await response.write(json.dumps(line).encode() + b"\r\n")
            if then is not None:
                try:
                    await then(request)
                finally:
                    self.abandoned.set()
            return response

        return answer

    async def break_off(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    yield engine
    engine.released.set()
    await runner.cleanup()


@pytest.fixture
async def runtime(engine: Engine, tmp_path: Path) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(f"unix://{tmp_path / 's'}", "node_1", lambda: "10.0.0.1")
    yield runtime
    await runtime.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (docker, docker_api):
        monkeypatch.setattr(module, "CALL_SECONDS", 0.2)
    monkeypatch.setattr(docker, "INSPECT_SECONDS", 0.2)
    monkeypatch.setattr(docker_pull, "SILENCE_SECONDS", 0.2)


async def pulled(runtime: DockerRuntime) -> tuple[RuntimeFault | None, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    try:
        await runtime.pull("x:1", NONE, lambda done, known: seen.append((done, known)))
    except RuntimeFault as fault:
        return fault, seen
    return None, seen


@pytest.mark.usefixtures("hurried")
async def test_an_engine_that_hangs_is_unreachable(engine: Engine, runtime: DockerRuntime) -> None:
    engine.answers = {"json": engine.hang, "info": engine.hang}
    for whole in (runtime.observe, runtime.facts):
        with pytest.raises(EngineUnreachable, match="no answer"):
            await whole()


@pytest.mark.usefixtures("hurried")
async def test_a_single_call_without_an_answer_says_nothing_of_the_engine(
    engine: Engine, runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("STOP_MARGIN_SECONDS", 0.1), ("REMOVE_SECONDS", 0.1)):
        monkeypatch.setattr(docker, name, seconds)
    engine.answers = dict.fromkeys(("start", "stop", "abc", "json"), engine.hang)
    for call in (runtime.start("abc"), runtime.stop("abc", 0), runtime.remove("abc"), runtime.inspect("abc")):
        with pytest.raises(Unanswered, match="no answer"):
            await call


@pytest.mark.parametrize("answer", ["[]", "{}", "nonsense"])
async def test_what_is_no_docker_engine_is_unreachable(engine: Engine, runtime: DockerRuntime, answer: str) -> None:
    async def other(request: web.Request) -> web.StreamResponse:
        return web.Response(text=answer, content_type="application/json")

    engine.answers = {"info": other, "json": other}
    with pytest.raises(EngineUnreachable, match="cannot be read"):
        await runtime.facts()


@pytest.mark.parametrize(("owner", "removed"), [("node_1", True), ("node_2", False), (None, False)])
async def test_only_its_own_volumes_are_removed(
    engine: Engine, runtime: DockerRuntime, owner: str | None, removed: bool
) -> None:
    asked: list[str] = []

    async def volume(request: web.Request) -> web.StreamResponse:
        asked.append(request.method)
        labels = None if owner is None else {LABEL_NODE: owner}
        return web.json_response({"Name": "argosy_data", "Labels": labels})

    engine.answers = {"argosy_data": volume}
    await runtime.remove_volume("argosy_data")
    assert ("DELETE" in asked) is removed


@pytest.mark.usefixtures("hurried")
async def test_one_container_that_hangs_does_not_hide_the_others(engine: Engine, runtime: DockerRuntime) -> None:
    async def listing(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/containers/json"):
            labels = {"argosy.instance": "ins_1", "argosy.spec": "00ff"}
            return web.json_response([{"Id": "abc", "State": "running", "Labels": labels, "ImageID": "sha256:1"}])
        return await engine.hang(request)

    engine.answers = {"json": listing}
    (seen,) = await runtime.observe()
    assert (seen.engine_id, seen.instance_id, seen.state, seen.pid) == ("abc", "ins_1", "running", 0)


async def test_a_call_that_is_broken_off_is_unreachable(engine: Engine, runtime: DockerRuntime) -> None:
    engine.answers = {"start": engine.break_off}
    with pytest.raises(EngineUnreachable):
        await runtime.start("abc")


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("said", [[], [{"status": "Pulling from x"}]])
async def test_a_pull_without_a_word_is_given_up(engine: Engine, runtime: DockerRuntime, said: list[object]) -> None:
    engine.answers = {"create": engine.saying(*said, then=engine.hang) if said else engine.hang}
    fault, _ = await pulled(runtime)
    assert fault is not None
    assert (fault.code, fault.temporary) == (reason.IMAGE_PULL_FAILED, True)
    assert "no progress" in fault.message


async def test_abandoning_a_begun_pull_closes_its_connection(engine: Engine, runtime: DockerRuntime) -> None:
    begun = {"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 2}}
    engine.answers = {"create": engine.saying(begun, then=engine.hang)}
    heard = asyncio.Event()
    pulling = asyncio.create_task(runtime.pull("x:1", NONE, lambda _done, _known: heard.set()))
    async with asyncio.timeout(10):
        await heard.wait()
        pulling.cancel()
        await engine.abandoned.wait()


async def test_an_error_in_the_middle_of_a_pull(engine: Engine, runtime: DockerRuntime) -> None:
    begun = {"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 2}}
    failed = {"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}
    engine.answers = {"create": engine.saying(begun, failed)}
    fault, seen = await pulled(runtime)
    assert fault is not None
    assert (fault.code, seen) == (reason.IMAGE_NOT_FOUND, [(1, 2)])


async def test_a_pull_that_is_broken_off_is_not_a_success(engine: Engine, runtime: DockerRuntime) -> None:
    engine.answers = {"create": engine.saying({"status": "Waiting"}, then=engine.break_off)}
    fault, _ = await pulled(runtime)
    assert isinstance(fault, EngineUnreachable)


async def test_an_answer_that_is_no_json(engine: Engine, runtime: DockerRuntime) -> None:
    async def garbage(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"<html>\n")

    engine.answers = {"create": garbage}
    fault, _ = await pulled(runtime)
    assert fault is not None
    assert (fault.code, fault.temporary) == (reason.IMAGE_PULL_FAILED, True)


async def test_an_engine_that_comes_back_older_is_spoken_to_in_its_version(
    engine: Engine, runtime: DockerRuntime
) -> None:
    assert await runtime.image_id("x:1") is None
    engine.api_version = "1.40"
    engine.answers = {"start": engine.break_off}
    with pytest.raises(EngineUnreachable):
        await runtime.start("abc")
    assert await runtime.image_id("x:1") is None
    assert engine.asked[-1].startswith("/v1.40/")


async def test_events_that_end_are_an_engine_that_went(engine: Engine, runtime: DockerRuntime) -> None:
    said = {"Type": "container", "Action": "die", "Actor": {"ID": "abc", "Attributes": {"argosy.instance": "ins_1"}}}
    engine.answers = {"events": engine.saying(said)}
    events = runtime.events()
    assert (await anext(events)).instance_id is None
    assert (await anext(events)).instance_id == "ins_1"
    with pytest.raises(EngineUnreachable):
        await anext(events)
