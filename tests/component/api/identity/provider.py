"""A real OpenID provider as its own process, and a person who signs in there with forms and cookies, as browsers do."""

import re
import subprocess
from typing import Any
from urllib.parse import urljoin

import httpx

from tests.component.api import node

CLIENT_ID = "argosy"
CLIENT_SECRET = "a secret & with = signs"
_FORM = re.compile(r'<form[^>]*action="(?P<action>[^"]+)"')
_PROMPT = re.compile(r'name="prompt" value="(?P<prompt>\w+)"')


class Provider:
    def __init__(self, redirect_uri: str) -> None:
        self._process = subprocess.Popen(
            ["node", "oidc/provider.mjs", redirect_uri],
            cwd=node.prepare(),
            env=node.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.issuer = self._listening()

    def _listening(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("http://"):
                return line.strip()
        raise AssertionError(f"the OpenID provider ended with {self._process.wait()}")

    def put(self, subject: str, **claims: Any) -> None:
        """An account there."""
        response = httpx.put(f"{self.issuer}/people/{subject}", json=claims)
        assert response.status_code == 204, response.text

    def close(self) -> None:
        self._process.communicate()


async def visit(client: httpx.AsyncClient, url: str, subject: str) -> str:
    """Sign in at the provider and agree to everything; the URL that it sends the browser back to."""
    response = await client.get(url)
    while True:
        if response.is_redirect:
            target = urljoin(str(response.url), response.headers["location"])
            if not target.startswith(str(response.url.copy_with(path="/", query=None))):
                return target
            response = await client.get(target)
            continue
        assert response.status_code == 200, response.text
        form, prompt = _FORM.search(response.text), _PROMPT.search(response.text)
        assert form is not None, response.text
        assert prompt is not None, response.text
        fields = {"prompt": prompt["prompt"], "login": subject, "password": "anything"}
        response = await client.post(urljoin(str(response.url), form["action"]), data=fields)
