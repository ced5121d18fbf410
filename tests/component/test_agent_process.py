"""The agent as a process: what it prints and how it leaves. No engine answers here, which is a node status and not a crash."""

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shared.wire import frames
from shared.wire.closing import CloseReason
from shared.wire.join import JoinToken
from tests.fakes.hub import FakeHub, HubServer

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def server() -> AsyncIterator[HubServer]:
    async with HubServer(FakeHub()).running() as running:
        yield running


class AgentProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()

    async def until(self, event: str) -> list[str]:
        """The lines on stderr up to one that tells of `event`."""
        assert self._process.stderr is not None
        lines: list[str] = []
        while not (lines and event in lines[-1]):
            line = (await self._process.stderr.readline()).decode()
            assert line, f"it ended before it told of {event}: {lines}"
            lines.append(line)
        return lines

    async def end(self) -> tuple[int, list[str]]:
        """(status, lines on stderr)."""
        _, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, stderr.decode().splitlines()


@asynccontextmanager
async def agent(
    state_dir: Path, endpoint: str, *arguments: str, env: dict[str, str] | None = None
) -> AsyncIterator[AgentProcess]:
    command = [sys.executable, "-m", "agent", "--coordinator", endpoint, "--state-dir", str(state_dir)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--docker-host", f"unix://{state_dir}/no-engine.sock"),
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if not key.startswith("ARGOSY_")} | (env or {}),
    )
    try:
        yield AgentProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def join(token: JoinToken) -> tuple[str, str]:
    return "--join", str(token)


async def test_it_joins_reports_its_engine_missing_and_leaves_on_sigterm(server: HubServer, tmp_path: Path) -> None:
    token = server.hub.token()
    async with agent(tmp_path, server.endpoint, *join(token), "--label", "zone=nord") as running:
        served = await server.session()
        assert served.hello is not None
        facts = served.hello.facts
        assert facts.labels == {"zone": "nord"}
        assert facts.cpu_millis >= 1000
        assert facts.engine.reason is not None
        assert facts.engine.reason.code == "engine_unreachable"
        [sample] = await served.wait_for(frames.MetricsSample)
        assert sample.host.memory_total > 0
        asked = time.monotonic()
        running.terminate()
        status, lines = await running.end()
        assert (status, served.close_code) == (0, CloseReason.GOING_AWAY.code)
        assert time.monotonic() - asked < 10
        assert all(json.loads(line)["event"] for line in lines), "JSON when nobody watches"
        assert str(token) not in "".join(lines)
    assert {path.name for path in tmp_path.iterdir()} >= {"identity.json", "journal.db", "agent.lock"}


async def test_it_comes_back_as_the_same_node_without_a_token(server: HubServer, tmp_path: Path) -> None:
    async with agent(tmp_path, server.endpoint, *join(server.hub.token())) as running:
        await (await server.session()).wait_for(frames.MetricsSample)
        running.kill()
        await running.end()
    async with agent(tmp_path, server.endpoint) as running:
        served = await server.session()
        assert served.hello is not None
        assert [served.hello.node_id] == list(server.hub.nodes)
        assert served.hello.epoch == 1
        running.terminate()
        assert (await running.end())[0] == 0


async def test_revoked_it_says_so_in_one_line_and_leaves_for_good(server: HubServer, tmp_path: Path) -> None:
    async with agent(tmp_path, server.endpoint, *join(server.hub.token())) as running:
        served = await server.session()
        await served.send(frames.HubGoaway(CloseReason.REVOKED.code, CloseReason.REVOKED.meaning))
        status, lines = await running.end()
    assert status == 3
    assert "revoked" in lines[-1]
    assert "Traceback" not in "".join(lines)


async def test_a_refused_token_ends_it_for_good(server: HubServer, tmp_path: Path) -> None:
    token = server.hub.token()
    server.hub.secrets.clear()
    async with agent(tmp_path, server.endpoint, *join(token)) as running:
        status, lines = await running.end()
    assert (status, server.count) == (3, 1)
    assert "token_refused" in lines[-1]
    assert str(token) not in "".join(lines)


async def test_two_agents_cannot_share_a_state_directory(server: HubServer, tmp_path: Path) -> None:
    async with agent(tmp_path, server.endpoint, *join(server.hub.token())):
        await server.session()
        async with agent(tmp_path, server.endpoint) as second:
            status, lines = await second.end()
        assert status == 2
        assert len(lines) == 1
        assert "in use" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "needs --join"),
        (("--join", "nonsense"), "--join (ARGOSY_JOIN)"),
        (("--address", "nowhere"), "--address (ARGOSY_ADDRESS)"),
        (("--policy", "/does/not/exist"), "--policy (ARGOSY_POLICY)"),
        (("--state-dir", "/proc/version/state"), "state directory /proc/version/state"),
    ],
)
async def test_what_cannot_be_used_is_one_line_and_status_2(
    tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    async with agent(tmp_path, "http://127.0.0.1:1", *arguments) as running:
        status, lines = await running.end()
    assert status == 2
    assert len(lines) == 1
    assert why in lines[0]


async def test_a_policy_it_cannot_read_is_no_policy_to_run_with(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("allow_everything = true\n")
    async with agent(tmp_path, server.endpoint, *join(server.hub.token())) as running:
        status, lines = await running.end()
    assert (status, len(lines)) == (2, 1)
    assert "allow_everything" in lines[0]


async def test_without_a_coordinator_it_waits_and_still_leaves_at_once(tmp_path: Path, server: HubServer) -> None:
    async with agent(tmp_path, "http://127.0.0.1:1", *join(server.hub.token())) as running:
        lines = await running.until("link.down")
        assert "127.0.0.1:1" in lines[-1]
        running.terminate()
        assert (await running.end())[0] == 0


async def test_over_tls_it_trusts_whom_its_machine_trusts(tmp_path: Path) -> None:
    certificate, tls = await asyncio.to_thread(self_signed, tmp_path)
    async with HubServer(FakeHub()).running(tls) as server:
        async with agent(tmp_path / "stranger", server.endpoint, *join(server.hub.token())) as running:
            lines = await running.until("link.down")
            assert "certificate" in lines[-1].lower()
            assert server.count == 0
        trusting = {"SSL_CERT_FILE": str(certificate)}
        async with agent(tmp_path / "friend", server.endpoint, *join(server.hub.token()), env=trusting) as running:
            await (await server.session()).wait_for(frames.MetricsSample)
            running.terminate()
            assert (await running.end())[0] == 0


def self_signed(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that is its own authority, and a server's context with it."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(addresses, critical=False).sign(key, None)
    certificate, private = directory / "hub.crt", directory / "hub.key"
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context
