"""Syslog to receivers of this file's own: octet counting over TCP and TLS, datagrams, and connections that break."""

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coordinator.logs.drains.lines import Entry, Line, Origin
from coordinator.logs.drains.making import make_target
from coordinator.logs.drains.targets import DeliveryError, Target
from coordinator.store.log_drains import DrainConfig, DrainSecret
from tests.fakes.seeds import until

ORIGIN = Origin("org_1", container="web", instance_id="inst_1", node_id="node_1")


def entries(*texts: str) -> list[Entry]:
    return [(ORIGIN, Line(1_700_000_000 * 10**9, 0, 1, text)) for text in texts]


class Collector:
    """Reads octet-counted messages. `cut`: closes each new connection at once, unread."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.connections = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator["Collector"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.drop()
            await server.wait_closed()

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                await self.reading.wait()
                size = int(await reader.readuntil(b" "))
                self.messages.append((await reader.readexactly(size)).decode())
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def has(self, count: int) -> list[str]:
        async def enough() -> bool:
            return len(self.messages) >= count

        await until(enough, f"{count} messages")
        return [message.rsplit("] ", 1)[1] for message in self.messages]


async def made(url: str, ca: str = "") -> Target:
    return await asyncio.to_thread(make_target, "syslog", DrainConfig(url=url, ca=ca), DrainSecret())


async def test_tcp_one_connection_for_many_batches() -> None:
    async with Collector().running() as collector:
        target = await made(f"tcp://127.0.0.1:{collector.port}")
        await target.send(entries("a", "b\nc"))
        await target.send(entries("d"))
        assert await collector.has(3) == ["a", "b\nc", "d"]
        assert collector.connections == 1
        await target.close()


async def test_a_broken_connection_is_noticed_and_made_again() -> None:
    async with Collector().running() as collector:
        target = await made(f"tcp://127.0.0.1:{collector.port}")
        await target.send(entries("a"))
        await collector.has(1)
        collector.drop()
        for _ in range(3):
            try:
                await target.send(entries("b"))
                break
            except DeliveryError:  # what is sent first after the break may find it out
                continue
        assert (await collector.has(2))[:2] == ["a", "b"]
        assert collector.connections == 2
        await target.close()


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    target = await made(f"tcp://127.0.0.1:{port}")
    with pytest.raises(DeliveryError, match=f"127.0.0.1:{port}"):
        await target.send(entries("a"))
    await target.close()


async def test_a_batch_counts_only_when_the_other_kernel_has_all_of_it() -> None:
    """A receiver that does not read: what fills the sockets on both sides is not delivered, whatever the transport took."""
    async with Collector().running() as collector:
        collector.reading.clear()
        target = await made(f"tcp://127.0.0.1:{collector.port}")
        sending = asyncio.create_task(target.send(entries(*["x" * 10_000] * 2000)))

        async def connected() -> bool:
            return collector.connections == 1

        await until(connected)
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done
        collector.drop()
        with pytest.raises(DeliveryError):
            await sending
        await target.close()


def certificate(directory: Path) -> tuple[ssl.SSLContext, str]:
    """Of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "collector")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "both.pem"
    path.write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, pem.decode()


async def test_tls_trusts_the_given_authority_and_no_other(tmp_path: Path) -> None:
    context, ca = certificate(tmp_path)
    async with Collector().running(context) as collector:
        target = await made(f"tls://127.0.0.1:{collector.port}", ca)
        await target.send(entries("sealed"))
        assert await collector.has(1) == ["sealed"]
        await target.close()
        stranger = await made(f"tls://127.0.0.1:{collector.port}")
        with pytest.raises(DeliveryError, match=r"(?i)certificate"):
            await stranger.send(entries("not for you"))
        await stranger.close()
    assert len(collector.messages) == 1


async def test_udp_is_a_datagram_a_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        target = await made(f"udp://127.0.0.1:{listener.getsockname()[1]}")
        await target.send(entries("a", "b"))
        found = [await asyncio.to_thread(listener.recv, 65536) for _ in range(2)]
        await target.close()
    assert [each.decode().rsplit("] ", 1)[1] for each in found] == ["a", "b"]
