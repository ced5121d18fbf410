"""What the tests of sessions look through: it keeps cookies, says where its pages are from, and sends the token they read."""

from typing import Any

import httpx

URL = "http://coordinator.test"
EMAIL = "ann@example.test"
PASSWORD = "a long enough password"


class Browser:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.origin = str(client.base_url)

    @property
    def csrf(self) -> str:
        return self.client.cookies.get("argosy_csrf") or ""

    async def send(
        self, procedure: str, *, method: str = "POST", headers: dict[str, str] | None = None, **data: Any
    ) -> httpx.Response:
        """As a page of ours does."""
        sent = {"Origin": self.origin, "X-CSRF-Token": self.csrf} if headers is None else headers
        if method == "GET":
            return await self.client.get(f"/api/{procedure}", params=data, headers=sent)
        return await self.client.request(method, f"/api/{procedure}", json=data, headers=sent)

    async def call(self, procedure: str, /, expect: int = 200, *, method: str = "POST", **data: Any) -> Any:
        response = await self.send(procedure, method=method, **data)
        assert response.status_code == expect, response.text
        if response.status_code == 204:
            return None
        body = response.json()
        return body["result"]["data"] if response.status_code < 400 else body["error"]

    async def sign_up(self, token: str, email: str = EMAIL, password: str = PASSWORD) -> Any:
        return await self.call("session.signUp", 201, token=token, email=email, password=password, name="Ann")

    async def sign_in(self, expect: int = 200, email: str = EMAIL, password: str = PASSWORD, **data: Any) -> Any:
        return await self.call("session.signIn", expect, email=email, password=password, **data)

    def kept(self) -> dict[str, str]:
        return dict(self.client.cookies)

    def take_back(self, kept: dict[str, str]) -> None:
        """Put cookies back that the server took away, as who has stolen them does."""
        self.forget()
        for name, value in kept.items():
            self.client.cookies.set(name, value)

    def forget(self) -> None:
        """As a person does who clears what the browser keeps."""
        self.client.cookies.clear()
