"""The published clients of tRPC, unmodified, against a coordinator that listens: every link of both versions, subscriptions that
lose their connection, and the compiler over the served types."""

import asyncio
import json
import re
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.doors.application import make_app
from coordinator.store import containers
from tests.component.api import node
from tests.component.api.caller import Api, Home, make
from tests.component.api.conftest import PLENTY
from tests.component.api.listening import Listening, listening
from tests.component.api.staged import Stage
from tests.component.api.test_following import Nodes
from tests.conftest import DATABASES
from tests.fakes.seeds import until

pytestmark = pytest.mark.timeout(180)
SECONDS = 60


@pytest.fixture(scope="module")
def packages() -> Path:
    return node.prepare()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage().declared() as stage:
        yield stage


@dataclass
class Clients:
    """What runs a script of `tests/node` against the coordinator."""

    api: Api
    server: Listening
    environment: dict[str, str]
    packages: Path

    async def start(self, *arguments: str, cwd: Path | None = None) -> Process:
        at = cwd or self.packages
        return await asyncio.create_subprocess_exec(
            "node", *arguments, cwd=at, env=self.environment, stdout=PIPE, stderr=PIPE
        )

    async def run(self, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
        """Status, and all that was written."""
        async with asyncio.timeout(SECONDS):
            process = await self.start(*arguments, cwd=cwd)
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode() + err.decode()

    @asynccontextmanager
    async def following(self, procedure: str, way: str = "header", **given: Any) -> AsyncIterator["Follower"]:
        process = await self.start("v11/follow.mjs", procedure, json.dumps(given), way)
        try:
            async with asyncio.timeout(SECONDS):
                yield Follower(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


class Follower:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def says(self, key: str) -> Any:
        """What it says next of this; what it says of other things in between is passed over."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if key in told:
                return told[key] if key != "error" else told
        raise AssertionError(f"it ended: {(await self._process.stderr.read()).decode()}")

    async def ends(self) -> int:
        return await self._process.wait()


@pytest.fixture
async def clients(api: Api, home: Home, stage: Stage, packages: Path) -> AsyncIterator[Clients]:
    api.services.broker.attach(Nodes())
    made = await make(api, home)
    async with listening(make_app(api.services, limits=PLENTY)) as server:
        environment = node.environment(
            ARGOSY_URL=server.url,
            ARGOSY_TOKEN=api.token,
            ARGOSY_ORGANIZATION=home.organization_id,
            ARGOSY_CONTAINER=made["id"],
        )
        yield Clients(api, server, environment, packages)


@pytest.mark.parametrize("version", ["v10", "v11"])
async def test_every_link_of_a_version(clients: Clients, version: str) -> None:
    status, written = await clients.run(f"{version}/links.mjs")
    assert (status, written) == (0, "ok\n")


@pytest.mark.parametrize("way", ["header", "query"])
async def test_a_subscription_from_its_start_to_its_end(clients: Clients, stage: Stage, way: str) -> None:
    async with clients.following("test.ticks", way, count=3) as follower:
        assert await follower.says("started") is True
        for number in (1, 2, 3):
            assert await follower.says("data") == {
                "id": str(number),
                "data": {"number": number, "cursor": str(number)},
            }
        assert await follower.says("complete") is True
        assert await follower.ends() == 0


async def test_a_subscription_survives_its_connection_without_gap_or_repeat(clients: Clients, stage: Stage) -> None:
    stage.allow(2)
    async with clients.following("test.ticks", count=4) as follower:
        assert [(await follower.says("data"))["id"] for _ in range(2)] == ["1", "2"]
        clients.server.cut()
        stage.allow(4)
        assert [(await follower.says("data"))["id"] for _ in range(2)] == ["3", "4"]
        assert await follower.says("complete") is True


async def test_a_client_that_leaves_ends_what_ran_for_it(clients: Clients, stage: Stage) -> None:
    stage.allow(1)
    async with clients.following("test.ticks", count=2) as follower:
        await follower.says("data")
        assert stage.closed == 0

    async def ended() -> bool:
        return stage.closed == 1

    await until(ended, "the stream of the reader that left has ended")


async def test_errors_of_a_subscription_arrive_as_errors(clients: Clients, stage: Stage) -> None:
    for procedure, given, code, status in (
        ("test.ticks", {"count": 1, "fail": True}, "PRECONDITION_FAILED", 412),
        ("test.ticks", {"count": "x"}, "BAD_REQUEST", 400),
        ("test.fly", {}, "NOT_FOUND", 404),
        ("system.version", {}, "BAD_REQUEST", 400),
        ("container.logs", {"containerId": "ctr_none", "follow": True}, "NOT_FOUND", 404),
    ):
        async with clients.following(procedure, **given) as follower:
            told = await follower.says("error")
            assert (told["code"], told["httpStatus"]) == (code, status), procedure


async def test_logs_are_followed_until_their_container_is_gone(clients: Clients) -> None:
    container_id = clients.environment["ARGOSY_CONTAINER"]
    async with clients.following("container.logs", containerId=container_id, follow=True) as follower:
        assert await follower.says("started") is True
        await clients.api.call("container.remove", 204, containerId=container_id)
        await clients.api.store.write(lambda tx: containers.purge(tx, container_id=container_id))
        assert await follower.says("complete") is True


async def compiled(clients: Clients, version: str, script: str, at: Path) -> tuple[int, str]:
    home = clients.packages
    async with httpx.AsyncClient() as client:
        served = await client.get(f"{clients.server.url}/api/trpc.d.ts")
    (at / "argosy.d.ts").write_text(served.text)
    (at / "node_modules").symlink_to(home / "v11" / "node_modules" if version == "v11" else home / "node_modules")
    for name in (f"{version}/{script}", "tsconfig.json"):
        shutil.copy(home / name, at)
    return await clients.run(str(home / "node_modules" / "typescript" / "bin" / "tsc"), "--project", ".", cwd=at)


@pytest.mark.parametrize("database_url", DATABASES[:1], indirect=True)
@pytest.mark.parametrize("version", ["v10", "v11"])
async def test_a_client_is_typed_from_end_to_end(clients: Clients, version: str, tmp_path: Path) -> None:
    assert await compiled(clients, version, "typed.ts", tmp_path) == (0, "")


@pytest.mark.parametrize("database_url", DATABASES[:1], indirect=True)
@pytest.mark.parametrize("version", ["v10", "v11"])
async def test_the_compiler_finds_every_wrong_call(clients: Clients, version: str, tmp_path: Path) -> None:
    status, written = await compiled(clients, version, "wrong.ts", tmp_path)
    assert status != 0
    lines = (clients.packages / version / "wrong.ts").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "// WRONG" in line}
    assert {int(number) for number in re.findall(r"^wrong\.ts\((\d+),", written, re.MULTILINE)} == wrong
    assert re.findall(r"^(?!wrong\.ts|\s).+$", written, re.MULTILINE) == []
