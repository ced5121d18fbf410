"""Clients that generators make from the OpenAPI document: TypeScript's compile, and Python's drives a container from creation to
removal over a real connection. Neither has seen Argosy before."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator.doors.application import make_app
from coordinator.doors.openapi.document import encoded
from tests.component.api import node
from tests.component.api.caller import Api, Home
from tests.component.api.conftest import PLENTY
from tests.component.api.listening import listening

GENERATOR = Path(sys.executable).with_name("openapi-python-client")
PACKAGE = "argosy_client"
PATIENCE_SECONDS = 110
USED = """
import type { components, operations, paths } from "./argosy";

type Container = components["schemas"]["ContainerDetail"];
type Create = operations["container.create"]["requestBody"]["content"]["application/json"];
type Made = paths["/containers"]["post"]["responses"]["201"]["content"]["application/json"];
type Listed = paths["/containers"]["get"]["parameters"]["query"];

export const create: Create = { projectId: "proj_1", name: "web", image: "web:1", replicas: 3 };
export const listed: Listed = { projectId: "proj_1", limit: 10 };
export const name = (made: Made): Container["name"] => made.result.data.name;
export const failed = (error: components["schemas"]["Error"]): string => error.error.message;
"""
WRONG = """
import type { operations } from "./argosy";

type Create = operations["container.create"]["requestBody"]["content"]["application/json"];
export const create: Create = { name: 1 };
"""

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


async def run(*command: str | Path, cwd: Path) -> tuple[int, str]:
    """Exit status and everything it wrote."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=node.environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            written, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return process.returncode or 0, written.decode()


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A folder with the document in it."""
    (tmp_path / "openapi.json").write_bytes(encoded()[0])
    return tmp_path


async def test_typescript_made_from_the_document_compiles_and_checks(described: Path) -> None:
    tools = node.prepare() / "node_modules" / ".bin"
    optional = ("--default-non-nullable", "false")  # what has a default may be left out of a body
    generate = (tools / "openapi-typescript", "openapi.json", "-o", "argosy.ts", *optional)
    status, written = await run(*generate, cwd=described)
    assert status == 0, written
    status, written = await compiled(described, "used.ts", USED)
    assert status == 0, written
    status, written = await compiled(described, "wrong.ts", WRONG)
    assert status != 0
    assert "wrong.ts" in written


async def compiled(folder: Path, name: str, text: str) -> tuple[int, str]:
    """A module that uses the generated one, by the strict rules that the other clients' tests have."""
    (folder / name).write_text(text)
    (folder / "tsconfig.json").write_text(json.dumps({"extends": str(node.HOME / "tsconfig.json"), "files": [name]}))
    return await run(node.HOME / "node_modules" / ".bin" / "tsc", "-p", ".", cwd=folder)


@pytest.fixture
async def generated(described: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The package `argosy_client` can be imported."""
    (described / "config.yaml").write_text("post_hooks: []\n")
    made = ("--path", "openapi.json", "--output-path", PACKAGE, "--meta", "none", "--config", "config.yaml")
    status, written = await run(GENERATOR, "generate", *made, "--fail-on-warning", cwd=described)
    assert status == 0, written
    monkeypatch.syspath_prepend(described)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def operation(name: str) -> Callable[..., Awaitable[Any]]:
    """`container.create` as the generator calls it, with the whole response."""
    module = import_module(f"{PACKAGE}.api.{name.partition('.')[0]}.{name.replace('.', '_')}")
    return cast("Callable[..., Awaitable[Any]]", module.asyncio_detailed)


def model(title: str, **fields: Any) -> Any:
    return getattr(import_module(f"{PACKAGE}.models"), title)(**fields)


@pytest.mark.usefixtures("generated")
async def test_a_python_client_made_from_the_document_drives_a_container(api: Api, home: Home) -> None:
    app = make_app(api.services, limits=PLENTY)
    connect = import_module(PACKAGE).AuthenticatedClient
    async with listening(app) as server, connect(base_url=f"{server.url}/api", token=api.token) as client:
        where = {"project_id": home.project_id, "cluster_id": home.cluster_id}
        declared = model("CreateContainer", **where, name="web", image="web:1")
        created = await operation("container.create")(client=client, body=declared, idempotency_key="once")
        assert created.status_code == 201
        made = created.parsed.result.data
        assert (made.name, made.status, made.replicas) == ("web", "creating", 1)
        again = await operation("container.create")(client=client, body=declared, idempotency_key="once")
        assert again.parsed.result.data.id == made.id

        body = model("DeployBody", image="web:2")
        deployed = await operation("container.deploy")(container_id=made.id, client=client, body=body)
        assert deployed.parsed.result.data.new_image == "web:2"
        logs = await operation("container.logs")(container_id=made.id, client=client, tail=10)
        assert (logs.status_code, logs.parsed.result.data) == (200, [])
        listed = await operation("container.all")(client=client, project_id=home.project_id)
        assert [one.image for one in listed.parsed.result.data] == ["web:2"]

        removed = await operation("container.remove")(container_id=made.id, client=client)
        assert removed.status_code == 204
        found = await operation("container.one")(container_id=made.id, client=client)
        assert found.parsed.result.data.status == "deleting"
        missing = await operation("container.one")(container_id="ctr_none", client=client)
        assert (missing.status_code, missing.parsed.error.code) == (404, "NOT_FOUND")
