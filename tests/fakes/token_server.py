"""Registries for tests: one that asks for Basic, one that asks for a token of its realm, and Amazon's exchange, on loopback."""

import datetime
import ipaddress
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "opaque-token-9Zk"


@dataclass
class FakeRegistry:
    """`scheme`: what `/v2/` asks for. `realm` is its own `/token` unless a test says otherwise. `seen`: path and Authorization of
    each request."""

    scheme: str = "bearer"
    username: str = "me"
    password: str = "right"
    realm: str = ""
    address: str = ""
    anonymous: bool = False
    seen: list[tuple[str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/", self._base)
        app.router.add_get("/token", self._token)
        return app

    async def _base(self, request: web.Request) -> web.Response:
        said = self._note(request)
        if self.scheme == "none":
            return web.json_response({})
        wanted = f"Bearer {TOKEN}" if self.scheme == "bearer" else _basic(self.username, self.password)
        if said == wanted:
            return web.json_response({})
        realm = self.realm or f"{request.scheme}://{request.host}/token"
        asks = {
            "bearer": f'Bearer realm="{realm}",service="registry.test",scope=""',
            "basic": 'Basic realm="registry"',
            "digest": 'Digest realm="registry"',
        }[self.scheme]
        body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return web.json_response(body, status=401, headers={"WWW-Authenticate": asks})

    async def _token(self, request: web.Request) -> web.Response:
        said = self._note(request)
        if not said and self.anonymous:
            return web.json_response({"token": TOKEN})
        if said != _basic(self.username, self.password):
            return web.json_response({"details": "incorrect username or password"}, status=401)
        assert request.query["service"] == "registry.test"
        return web.json_response({"access_token": TOKEN})

    def _note(self, request: web.Request) -> str:
        said = request.headers.get("Authorization", "")
        self.seen.append((request.path, said))
        return said


@dataclass
class FakeAmazon:
    """Exchanges one access key. `life`: seconds a token lives."""

    access_key_id: str = "AKIAEXAMPLE"
    life: float = 12 * 3600.0
    failing: bool = False
    given: list[str] = field(default_factory=list)
    address: str = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._exchange)
        return app

    async def _exchange(self, request: web.Request) -> web.Response:
        assert request.headers["X-Amz-Target"].endswith(".GetAuthorizationToken")
        said = request.headers["Authorization"]
        assert said.startswith("AWS4-HMAC-SHA256 Credential="), said
        if self.failing or f"Credential={self.access_key_id}/" not in said:
            fault = {"__type": "UnrecognizedClientException", "message": "The security token is invalid."}
            return web.json_response(fault, status=400)
        password = f"password-{len(self.given) + 1}"
        self.given.append(password)
        data = {"authorizationToken": _encoded(f"AWS:{password}"), "expiresAt": time.time() + self.life}
        return web.json_response({"authorizationData": [data]}, content_type="application/x-amz-json-1.1")


@asynccontextmanager
async def serving(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """host:port on loopback."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def certificate(directory: Path, *, valid: bool = True) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side for 127.0.0.1 and localhost, and the side of a client that trusts it. Not `valid`: it has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.test")])
    now = datetime.datetime.now(datetime.UTC)
    begin, end = (now - datetime.timedelta(days=30), now + datetime.timedelta(days=30 if valid else -1))
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "registry.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


def _basic(username: str, password: str) -> str:
    return f"Basic {_encoded(f'{username}:{password}')}"


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()
