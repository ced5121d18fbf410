"""An issuer of JWTs: keys that change, documents over HTTP, and tokens that say whatever a test wants."""

import base64
import json
from collections import Counter
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, OKPKey, RSAKey

from tests.fakes.clock import FakeClock

AUDIENCE = "argosy"

Key = ECKey | OKPKey | RSAKey


def new_key(kid: str, algorithm: str = "ES256") -> Key:
    parameters: KeyParameters = {"kid": kid}
    match algorithm:
        case "RS256":
            return RSAKey.generate_key(2048, parameters)
        case "Ed25519":
            return OKPKey.generate_key("Ed25519", parameters)
        case _:
            return ECKey.generate_key("P-256", parameters)


class FakeIssuer:
    """`asked`: how often each document was fetched. `broken`: answers nothing but errors."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.keys: list[Key] = [new_key("first")]
        self.asked: Counter[str] = Counter()
        self.broken = False
        self._server: TestServer | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        self._server = TestServer(app)
        await self._server.start_server()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return str(self._server.make_url("")).rstrip("/")

    def token(self, key: Key | None = None, algorithm: str = "ES256", **claims: Any) -> str:
        """A claim of None is left out."""
        now = int(self._clock.wall())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, **claims}
        signer = key or self.keys[0]
        header = {"alg": algorithm, "kid": signer.kid}
        kept = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(header, kept, signer, algorithms=[algorithm])

    def unsigned(self, **claims: Any) -> str:
        body = self.token(**claims).split(".")[1]
        header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "first"}).encode()).rstrip(b"=").decode()
        return f"{header}.{body}."

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked["discovery"] += 1
        if self.broken:
            return web.Response(status=500)
        endpoints = {"jwks_uri": "/keys", "authorization_endpoint": "/authorize", "token_endpoint": "/token"}
        found = {name: self.url + path for name, path in endpoints.items()}
        return web.json_response({"issuer": self.url, **found})

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked["keys"] += 1
        if self.broken:
            return web.Response(status=500)
        listed = [key.as_dict(private=False) for key in self.keys]
        return web.json_response({"keys": [{"kty": "unknown", "kid": "other"}, *listed]})
