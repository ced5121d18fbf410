"""Logging in to real servers on loopback: each way of asking, each way of failing, and where nobody is sent."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web

from coordinator.providers import outward as module
from coordinator.providers.ecr import Ecr
from coordinator.providers.logins import Logins
from coordinator.providers.outward import MAX_BODY, Outward
from coordinator.store.registries import Credentials, NotExchanged, RegistryRecord
from shared.kit.clock import SystemClock
from shared.kit.network import forbidden
from tests.fakes.registries import logins, machine
from tests.fakes.token_server import TOKEN, FakeAmazon, FakeRegistry, certificate, serving

RIGHT = Credentials("me", "right")
WRONG = Credentials("me", "wrong-secret-4Tz")


def registry(server: str, *, insecure: bool = True, kind: str = "Custom") -> RegistryRecord:
    return RegistryRecord(
        id="reg_1",
        organization_id="org_1",
        name="one",
        type=kind,
        server=server,
        insecure=insecure,
        created_by="user_1",
        created_at=0.0,
        updated_at=0.0,
    )


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    """Asks for a token of its own realm."""
    made = FakeRegistry()
    async with serving(made.app()) as address:
        made.address = address
        yield made


async def test_a_token_of_the_realm(fake: FakeRegistry) -> None:
    assert await logins().problem(registry(fake.address), RIGHT) == ""
    assert [path for path, _ in fake.seen] == ["/v2/", "/token", "/v2/"]
    assert fake.seen[2][1] == f"Bearer {TOKEN}"
    problem = await logins().problem(registry(fake.address), WRONG)
    assert problem == f"{fake.address} does not accept this user name and password: incorrect username or password"
    assert WRONG.password not in problem


async def test_basic(fake: FakeRegistry) -> None:
    fake.scheme = "basic"
    assert await logins().problem(registry(fake.address), RIGHT) == ""
    problem = await logins().problem(registry(fake.address), WRONG)
    assert "does not accept this user name and password: authentication required" in problem
    assert "asks for a user name" in await logins().problem(registry(fake.address), Credentials())


async def test_a_public_one_gives_a_token_to_anybody(fake: FakeRegistry) -> None:
    fake.anonymous = True
    assert await logins().problem(registry(fake.address, kind="Public"), Credentials()) == ""
    assert fake.seen[1] == ("/token", "")


async def test_one_that_asks_for_nothing(fake: FakeRegistry) -> None:
    fake.scheme = "none"
    assert await logins().problem(registry(fake.address), RIGHT) == ""
    assert await logins().problem(registry(fake.address), Credentials()) == ""


async def test_what_argosy_does_not_know_is_named(fake: FakeRegistry) -> None:
    fake.scheme = "digest"
    assert "asks for digest" in await logins().problem(registry(fake.address), RIGHT)


async def test_over_tls_and_only_to_whom_it_trusts(tmp_path: Path) -> None:
    server, client = certificate(tmp_path)
    made = FakeRegistry()
    async with serving(made.app(), server) as address:
        port = address.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            assert await logins(tls=client).problem(registry(host, insecure=False), RIGHT) == "", "also by name"
        problem = await logins().problem(registry(address, insecure=False), RIGHT)
    assert problem.startswith(f"the certificate of {address} is not valid: self-signed")


async def test_an_expired_certificate(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, valid=False)
    async with serving(FakeRegistry().app(), server) as address:
        problem = await logins(tls=client).problem(registry(address, insecure=False), RIGHT)
    assert problem == f"the certificate of {address} is not valid: certificate has expired"


async def test_plain_http_is_said_to_be_so_and_gets_no_password(fake: FakeRegistry) -> None:
    problem = await logins().problem(registry(fake.address, insecure=False), RIGHT)
    assert problem == f"{fake.address} does not speak TLS; is it an insecure registry?"
    assert fake.seen == []


async def test_a_realm_without_tls_gets_no_password_from_a_secure_registry(tmp_path: Path, fake: FakeRegistry) -> None:
    server, client = certificate(tmp_path)
    secure = FakeRegistry(realm=f"http://{fake.address}/token")
    async with serving(secure.app(), server) as address:
        problem = await logins(tls=client).problem(registry(address, insecure=False), RIGHT)
    assert "does not use TLS" in problem
    assert fake.seen == []


async def test_a_redirect_is_not_followed(fake: FakeRegistry) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://{fake.address}/v2/")

    app = web.Application()
    app.router.add_get("/v2/", elsewhere)
    async with serving(app) as address:
        problem = await logins().problem(registry(address), RIGHT)
    assert "redirects to another address, which is not followed" in problem
    assert fake.seen == []


async def test_what_is_no_registry() -> None:
    async with serving(web.Application()) as address:
        assert await logins().problem(registry(address), RIGHT) == (
            f"{address} is not a registry: it answered 404 to /v2/"
        )


async def test_what_is_no_web_server() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert "does not speak HTTP" in await logins().problem(registry(address), RIGHT)


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await logins().problem(registry(address), RIGHT) == f"{address} refuses connections"
    problem = await logins().problem(registry("no-such-host.invalid"), RIGHT)
    assert problem == "the name no-such-host.invalid is not known"


async def test_an_answer_without_end_is_cut(fake: FakeRegistry) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(4 * MAX_BODY // 65536):
            await response.write(b"x" * 65536)
        return response

    app = web.Application()
    app.router.add_get("/v2/", flood)
    async with serving(app) as address:
        assert f"longer than {MAX_BODY} bytes" in await logins().problem(registry(address), RIGHT)


async def test_one_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_SECONDS", 0.2)
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert "did not answer" in await logins().problem(registry(address), RIGHT)
    over.set()
    server.close()


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("100.100.100.200", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("fd12::1", True),
        ("8.8.8.8", True),
    ],
)
def test_where_nobody_is_sent(address: str, allowed: bool) -> None:
    assert (forbidden(ip_address(address)) == "") is allowed


async def test_a_link_local_address_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by number nor by a name that leads there, not even beside an address that would do; nor as a realm."""
    problem = await logins().problem(registry("169.254.169.254"), RIGHT)
    assert problem == "169.254.169.254 is at 169.254.169.254, where Argosy sends nobody: a link-local address"

    async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("127.0.0.1", 80)), (2, 1, 6, "", ("169.254.169.254", 80))]

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        assert "sends nobody" in await logins().problem(registry("rebound.test"), RIGHT)
    made = FakeRegistry(realm="http://169.254.169.254/latest/meta-data")
    async with serving(made.app()) as address:
        assert "sends nobody" in await logins().problem(registry(address), RIGHT)


@pytest.fixture
async def amazon() -> AsyncIterator[FakeAmazon]:
    made = FakeAmazon()
    async with serving(made.app()) as address:
        made.address = address
        yield made


async def test_an_access_key_is_exchanged(amazon: FakeAmazon, fake: FakeRegistry) -> None:
    outward = Outward(machine())
    gate = Logins(outward, Ecr(outward, SystemClock(), f"http://{amazon.address}/"))
    key = Credentials(access_key_id="AKIAEXAMPLE", secret_access_key="s3cret-8Kd", region="eu-central-1")
    token = await gate.exchange(key)
    assert (token.username, token.password) == ("AWS", "password-1")
    fake.scheme, fake.username, fake.password = "basic", "AWS", "password-2"
    assert await gate.problem(registry(fake.address, kind="ECR"), key) == ""
    with pytest.raises(NotExchanged) as caught:
        await gate.exchange(
            Credentials(access_key_id="AKIAOTHER", secret_access_key="s3cret-8Kd", region="eu-central-1")
        )
    assert str(caught.value) == (
        "Amazon does not accept this access key: UnrecognizedClientException: The security token is invalid."
    )
    await outward.close()
