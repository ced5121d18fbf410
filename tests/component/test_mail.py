"""Mail against a real SMTP server: it arrives as text and HTML, is tried again, is given up, and gives no password away."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from coordinator.doors.application import make_app
from coordinator.errors import StartError
from coordinator.mail import postman as postman_module
from coordinator.mail.letters import Letter, write
from coordinator.mail.postman import Postman
from coordinator.mail.relay import DeliveryError, Relay, Server, parse
from coordinator.procedures.bootstrap import first_start
from coordinator.settings import read_settings
from coordinator.store import invitations
from coordinator.store.database import Store
from shared.kit.clock import SystemClock
from tests.component.api.caller import Api
from tests.component.api.conftest import PLENTY, services_on
from tests.fakes.seeds import until

LETTER = Letter("ann@example.test", "Hello", ("One & two.", "Three <b>."), "https://argosy.test/i#t0ken")
SENDER = "Argosy <argosy@example.org>"


class Box:
    """What a server got. `answers`: what it says to the next letters, instead of taking them. `logins`: names and passwords."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        self.answers: list[str] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.port = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 — the library's name
        if self.answers:
            return self.answers.pop(0)
        self.got.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 taken"

    def login(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss word", handled=False)


Serve = Callable[..., Awaitable[Box]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    started: list[Controller] = []

    async def start(*, port: int = 0, **options: Any) -> Box:
        box = Box()
        authenticated: dict[str, Any] = (
            {"authenticator": box.login, "auth_required": True} if options.pop("login", False) else {}
        )
        controller = Controller(box, hostname="127.0.0.1", port=port or _free_port(), **authenticated, **options)
        await asyncio.to_thread(controller.start)
        started.append(controller)
        box.port = controller.port
        return box

    yield start
    for controller in started:
        await asyncio.to_thread(controller.stop, no_assert=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Told:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    async def __call__(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    async def any(self) -> bool:
        return bool(self.outcomes)


@pytest.fixture
async def working() -> AsyncIterator[Callable[[Postman], None]]:
    tasks: list[asyncio.Task[None]] = []
    yield lambda postman: tasks.append(asyncio.create_task(postman.run()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def postman_to(box_port: int, **options: Any) -> Postman:
    relay = Relay(parse(f"smtp://127.0.0.1:{box_port}"), SENDER)
    return Postman(relay, SystemClock(), **{"first_delay": 0.02, **options})


async def test_a_letter_arrives_as_text_and_as_html(serve: Serve, working: Any) -> None:
    box = await serve()
    postman, told = postman_to(box.port), Told()
    working(postman)
    assert postman.post(LETTER, told)
    await until(told.any)
    assert told.outcomes == ["sent"]
    (got,) = box.got
    assert (got["From"], got["To"], got["Subject"]) == (SENDER, LETTER.to, "Hello")
    assert got["Message-ID"].endswith("@example.org>")
    plain, html = got.get_body(("plain",)), got.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().split("\r\n\r\n") == ["One & two.", "Three <b>.", "https://argosy.test/i#t0ken\r\n"]
    assert "<p>Three &lt;b&gt;.</p>" in html.get_content()
    assert 'href="https://argosy.test/i#t0ken"' in html.get_content()


async def test_what_the_server_cannot_take_now_is_tried_again(serve: Serve, working: Any) -> None:
    box = await serve()
    box.answers = ["451 greylisted", "421 busy"]
    postman, told = postman_to(box.port), Told()
    working(postman)
    postman.post(LETTER, told)
    await until(told.any)
    assert told.outcomes == ["sent"]
    assert len(box.got) == 1


async def test_a_server_that_is_away_gets_it_when_it_is_back(serve: Serve, working: Any) -> None:
    port = _free_port()
    postman, told = postman_to(port), Told()
    working(postman)
    postman.post(LETTER, told)
    await asyncio.sleep(0)
    box = await serve(port=port)
    await until(told.any)
    assert told.outcomes == ["sent"]
    assert len(box.got) == 1


async def test_what_the_server_refuses_for_good_is_given_up_and_the_next_goes_out(serve: Serve, working: Any) -> None:
    box = await serve()
    box.answers = ["550 no such\r\n person"]
    postman, first, second = postman_to(box.port), Told(), Told()
    working(postman)
    postman.post(LETTER, first)
    postman.post(LETTER, second)
    await until(second.any)
    assert first.outcomes[0].startswith("failed: refused: 550 no such")
    assert second.outcomes == ["sent"]


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch, working: Any) -> None:
    monkeypatch.setattr(postman_module, "PATIENCE_SECONDS", 0.0)
    postman, told = postman_to(_free_port()), Told()
    working(postman)
    postman.post(LETTER, told)
    await until(told.any)
    assert told.outcomes[0].startswith("failed: the mail server cannot be reached")


async def test_a_letter_nobody_can_write_and_an_outcome_nobody_can_note_hold_up_no_other(
    serve: Serve, working: Any
) -> None:
    async def broken(outcome: str) -> None:
        raise RuntimeError(outcome)

    box = await serve()
    postman, odd, told = postman_to(box.port), Told(), Told()
    with capture_logs() as logged:
        working(postman)
        postman.post(Letter("a\nb@example.test", "x", ()), odd)
        postman.post(LETTER, broken)
        postman.post(LETTER, told)
        await until(told.any)
    assert len(logged) == 2
    assert odd.outcomes == ["failed: the coordinator's log has the details"]
    assert told.outcomes == ["sent"]


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postman_module, "CAPACITY", 2)
    postman = postman_to(1)
    assert [postman.post(LETTER, Told()) for _ in range(3)] == [True, True, False]


def certificate(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server called `localhost`, and of whoever believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_a_password_goes_over_an_encrypted_connection(serve: Serve, tmp_path: Path) -> None:
    server, believes = certificate(tmp_path)
    box = await serve(login=True, tls_context=server, require_starttls=True)
    relay = Relay(parse(f"smtp://me:p%40ss%20word@localhost:{box.port}"), SENDER, believes)
    await relay.deliver(write(LETTER, SENDER, 0.0))
    assert box.logins == [(b"me", b"p@ss word")]
    assert len(box.got) == 1


async def test_a_server_that_nobody_vouches_for_gets_no_password(serve: Serve, tmp_path: Path) -> None:
    server, _ = certificate(tmp_path)
    box = await serve(login=True, tls_context=server, require_starttls=True)
    relay = Relay(parse(f"smtp://me:p%40ss%20word@localhost:{box.port}"), SENDER)
    with pytest.raises(DeliveryError):
        await relay.deliver(write(LETTER, SENDER, 0.0))
    assert box.logins == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # on this machine, which is the point
async def test_a_wrong_password_is_told_and_not_tried_again(serve: Serve) -> None:
    box = await serve(login=True, auth_require_tls=False)
    relay = Relay(parse(f"smtp://me:wrong@127.0.0.1:{box.port}"), SENDER)
    with pytest.raises(DeliveryError) as refused:
        await relay.deliver(write(LETTER, SENDER, 0.0))
    assert refused.value.final
    assert "wrong" not in str(refused.value)


def test_only_this_machine_is_told_a_password_in_the_clear() -> None:
    assert parse("smtp://u:p@mail.example").start_tls is True
    assert parse("smtp://u:p@127.0.0.1").start_tls is None
    assert parse("smtp://mail.example").start_tls is None
    assert parse("smtps://u:p@mail.example") == Server("mail.example", 465, True, "u", "p")


@pytest.mark.parametrize(
    "url", ["mail.example", "http://mail.example", "smtp://", "smtp://h/path", "smtp://u@h", "smtp://h:port"]
)
def test_a_wrong_address_of_the_server_is_a_start_error_without_the_password(url: str) -> None:
    with pytest.raises(StartError) as refused:
        read_settings([], {"ARGOSY_SMTP_URL": url, "ARGOSY_MAIL_FROM": "a@b.test"}, lambda _: None)
    assert str(refused.value).startswith("ARGOSY_SMTP_URL: ")


def test_mail_needs_a_sender() -> None:
    with pytest.raises(StartError, match="ARGOSY_MAIL_FROM"):
        read_settings([], {"ARGOSY_SMTP_URL": "smtp://mail.example"}, lambda _: None)
    settings = read_settings(
        [], {"ARGOSY_SMTP_URL": "smtp://u:s3cret@h", "ARGOSY_MAIL_FROM": "a@b.test"}, lambda _: None
    )
    assert settings.mail.sender == "a@b.test"
    assert "s3cret" not in repr(settings)


async def test_an_invitation_is_mailed_and_its_link_shown_to_nobody_else(
    serve: Serve, working: Any, store: Store, tmp_path: Path
) -> None:
    box = await serve()
    box.answers = ["550 unknown"]
    postman = postman_to(box.port)
    services = replace(services_on(store), postman=postman)
    token = await first_start(store, services.vault, tmp_path)
    transport = httpx.ASGITransport(cast("Any", make_app(services, limits=PLENTY)))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        api = Api(client, services, token or "")
        (organization,) = await api.call("organization.all", method="GET")
        invited = {"organizationId": organization["id"], "email": "ann@example.test", "role": "viewer"}
        (made,) = await api.call("invitation.create", 201, **invited)
        assert (made["link"], made["delivery"]) == (None, "queued")
        working(postman)

        async def delivery() -> str:
            (listed,) = await api.call("invitation.all", method="GET", organizationId=organization["id"])
            return "" if listed["delivery"] == "queued" else str(listed["delivery"])

        assert (await until(delivery)).startswith("failed: refused: 550")
        await api.call("invitation.resend", invitationId=made["id"])
        assert await until(delivery) == "sent"
        (got,) = box.got
        body = got.get_body(("plain",))
        assert body is not None
        link = body.get_content().split()[-1]
        guest = await api.as_user("ann@example.test")
        await guest.call("invitation.accept", token=link.partition("#")[2])


async def test_what_was_queued_when_the_coordinator_ended_is_told_as_failed(store: Store, tmp_path: Path) -> None:
    services = services_on(store)
    token = await first_start(store, services.vault, tmp_path)
    services = replace(services, postman=postman_to(1))
    transport = httpx.ASGITransport(cast("Any", make_app(services, limits=PLENTY)))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        api = Api(client, services, token or "")
        (organization,) = await api.call("organization.all", method="GET")
        invited = {"organizationId": organization["id"], "email": "ann@example.test", "role": "viewer"}
        await api.call("invitation.create", 201, **invited)
        assert await store.write(partial(invitations.give_up_queued, delivery="failed: restarted")) == 1
        (listed,) = await api.call("invitation.all", method="GET", organizationId=organization["id"])
    assert listed["delivery"] == "failed: restarted"
