"""Ours beside tRPC's own server: the same requests, and what a client can tell apart of the answers must be the same.

Messages are our own, and so is how an end of input is worded; status, codes, envelopes, framing and the methods allowed are not.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.component.api import node
from tests.component.api.caller import Api
from tests.component.api.staged import Stage
from tests.conftest import DATABASES

pytestmark = pytest.mark.timeout(180)
JSON = {"content-type": "application/json"}
EVENTS = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class Ask:
    path: str
    input: Any = None
    method: str = "GET"
    batch: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, client: httpx.AsyncClient, token: str) -> httpx.Request:
        text = self.input if isinstance(self.input, str) else json.dumps(self.input)
        params = {"batch": "1"} if self.batch else {}
        if self.method == "GET" and self.input is not None:
            params["input"] = text
        headers = {"authorization": f"Bearer {token}", **(JSON if self.method == "POST" else {}), **self.headers}
        body = text.encode() if self.method == "POST" and self.input is not None else None
        return client.build_request(self.method, f"/api/trpc/{self.path}", params=params, content=body, headers=headers)


ECHO = {"text": "é"}
ASKED = [
    Ask("test.echo", ECHO),
    Ask("test.echo", ECHO, "POST"),
    Ask("test.put", ECHO, "POST"),
    Ask("test.put", ECHO, "GET"),
    Ask("test.echo", {"text": 7}),
    Ask("test.echo", "{nonsense"),
    Ask("test.echo", "{nonsense", "POST"),
    Ask("test.echo"),
    Ask("test.fly", ECHO),
    Ask("test.echo", ECHO, "POST", headers={"content-type": "text/plain"}),
    Ask("test.echo", ECHO, "POST", headers={"content-type": "APPLICATION/json;charset=utf-8"}),
    *(Ask("test.fail", {"code": code}) for code in ("CONFLICT", "FORBIDDEN", "PRECONDITION_FAILED")),
    Ask("test.echo,test.echo", {"0": ECHO, "1": ECHO}, batch=True),
    Ask("test.echo,test.fly,test.fail", {"0": ECHO, "2": {"code": "CONFLICT"}}, batch=True),
    Ask("test.fly,test.fly", batch=True),
    Ask("test.echo", {"0": ECHO}, batch=True),
    Ask("test.put,test.put", {"0": ECHO, "1": {}}, "POST", batch=True),
    Ask("test.echo,test.put", {"0": ECHO, "1": ECHO}, "POST", batch=True),
    Ask("test.echo,test.echo", [ECHO], batch=True),
    Ask("test.echo,test.echo", "{nonsense", batch=True),
    Ask(",".join(["test.echo"] * 33), {}, batch=True),
    Ask("test.ticks", {"0": {"count": 1}}, batch=True),
    Ask("test.echo", ECHO, headers={"trpc-accept": "application/jsonl"}),
    Ask("test.ticks", {"count": 2}, headers=EVENTS),
    Ask("test.ticks", {"count": 3}, headers={**EVENTS, "last-event-id": "1"}),
    Ask("test.ticks", {"count": 1, "fail": True}, headers=EVENTS),
    Ask("test.ticks", [], headers=EVENTS),
]


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    """The address of tRPC's own server."""
    home = node.prepare()
    command = ["node", "v11/reference.mjs"]
    with subprocess.Popen(command, cwd=home, env=node.environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage().declared() as stage:
        yield stage


def told(response: httpx.Response) -> Any:
    """What a client can tell, without the words."""
    streamed = response.headers["content-type"].startswith("text/event-stream")
    body = _events(response.text) if streamed else response.json()
    return response.status_code, streamed, response.headers.get("allow"), _without_words(body)


def _events(text: str) -> list[dict[str, Any]]:
    blocks = [block.strip("\n") for block in text.split("\n\n") if block.strip("\n")]
    events = [{name: value.strip() for name, _, value in _lines(block)} for block in blocks]
    return [{**event, "data": json.loads(event["data"] or '""')} for event in events]


def _lines(block: str) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in block.split("\n")]


def _without_words(value: Any) -> Any:
    match value:
        case list():
            return [_without_words(one) for one in value]
        case dict():
            return {key: _without_words(one) for key, one in value.items() if key not in ("message", "stack")}
        case _:
            return value


@pytest.mark.parametrize("database_url", DATABASES[:1], indirect=True)
@pytest.mark.parametrize("ask", ASKED, ids=lambda ask: f"{ask.method} {ask.path[:40]} {str(ask.input)[:30]}")
async def test_a_client_cannot_tell_them_apart(api: Api, stage: Stage, reference: str, ask: Ask) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(base_url=reference, trust_env=False) as other:
        theirs = told(await other.send(ask.request(other, api.token)))
        ours = told(await api.client.send(ask.request(api.client, api.token)))
    assert ours == theirs
