"""What the tests of the tenants door call it with."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.component.api.asgi import Exchange, request
from tests.component.api.caller import Api, Home
from tests.fakes.seeds import until


@dataclass
class Tenants:
    """A caller at one tenant's addresses: paths that begin with a dot are below it."""

    api: Api
    tenant_id: str

    async def ask(
        self, method: str, path: str, *, query: Any = None, body: Any = None, **headers: str
    ) -> httpx.Response:
        sent = {"Authorization": f"Bearer {self.api.token}", **{key.replace("_", "-"): headers[key] for key in headers}}
        return await self.api.client.request(method, self.path(path), params=query, json=body, headers=sent)

    async def get(self, path: str, expect: int = 200, **query: Any) -> Any:
        return _body(await self.ask("GET", path, query=query), expect)

    async def post(self, path: str, expect: int = 201, **body: Any) -> Any:
        return _body(await self.ask("POST", path, body=body), expect)

    async def patch(self, path: str, expect: int = 200, **body: Any) -> Any:
        return _body(await self.ask("PATCH", path, body=body), expect)

    async def delete(self, path: str, expect: int = 204) -> Any:
        return _body(await self.ask("DELETE", path), expect)

    async def follow(self, path: str, last_event_id: str = "") -> "Following":
        headers = [("Authorization", f"Bearer {self.api.token}")]
        if last_event_id:
            headers.append(("Last-Event-ID", last_event_id))
        transport: Any = self.api.client._transport
        return Following(await request(transport.app, self.path(path), headers=headers))

    def path(self, path: str) -> str:
        return f"/tenants/{self.tenant_id}{path[1:]}" if path.startswith(".") else path


def at(api: Api, home: Home) -> Tenants:
    return Tenants(api, home.organization_id)


@dataclass
class Following:
    """A stream of frames."""

    exchange: Exchange

    def frames(self) -> list[dict[str, Any]]:
        """Each with its `id`, where it has one."""
        whole, _, _ = self.exchange.body.decode().rpartition("\n\n")
        return [_frame(block) for block in whole.split("\n\n") if "data:" in block]

    async def some(self, number: int) -> list[dict[str, Any]]:
        async def there() -> bool:
            return len(self.frames()) >= number

        await until(there, f"{number} frames")
        return self.frames()

    async def leave(self) -> list[dict[str, Any]]:
        await self.exchange.leave()
        return self.frames()


def _frame(block: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    assert set(fields) <= {"id", "data"}
    frame: dict[str, Any] = httpx.Response(200, text=fields["data"]).json()
    return {**frame, "id": fields["id"]} if "id" in fields else frame


def _body(response: httpx.Response, expect: int) -> Any:
    assert response.status_code == expect, response.text
    if response.status_code == 204:
        assert response.content == b""
        return None
    return response.json()
