"""What an installation rests on: its address, its key file, its port, and that every declaration it takes reaches a node."""

import os
import socket
from pathlib import Path

import msgspec
import pytest

from coordinator.errors import StartError
from coordinator.hub.assignments import resolve
from coordinator.serving import listen
from coordinator.settings import read_settings
from coordinator.store import private_files
from coordinator.store.vault import Compartment, Vault, plain_size
from shared.kit.seal import SealingKey, seal
from shared.spec.container import MAX_SENT_BYTES, EnvVar, RegistryCredentials, Template, Volume, problems
from shared.spec.instance import Assignment, InstanceSecrets
from shared.wire.codec import encode
from shared.wire.frames import AssignmentSet


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:8420", "http://127.0.0.1:8420"),
        ("[::1]:8420", "http://[::1]:8420"),
        ("0.0.0.0:8420", "http://198.51.100.7:8420"),
        ("[::]:8420", "http://198.51.100.7:8420"),
    ],
)
def test_the_default_url_is_one_that_can_be_opened(bind: str, url: str) -> None:
    assert read_settings(["--bind", bind], {}, lambda _: "198.51.100.7").url == url


def test_an_outgoing_ipv6_address_is_bracketed_too() -> None:
    assert read_settings(["--bind", "[::]:80"], {}, lambda _: "2001:db8::7").url == "http://[2001:db8::7]:80"


def test_without_any_outgoing_address_only_a_given_url_is_told() -> None:
    assert read_settings(["--bind", "0.0.0.0:80"], {}, lambda _: None).url == ""
    given = ["--bind", "0.0.0.0:80", "--url", "https://argosy.example/"]
    assert read_settings(given, {}, lambda _: None).url == "https://argosy.example"


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(StartError, match=r"ARGOSY_BIND: .*in use"), listen(*other.getsockname()):
            pass


def test_a_crash_before_the_key_is_on_disk_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "master.key"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            Vault.open(path)
    assert not path.exists()
    Vault.open(path)
    assert (len(path.read_bytes()), path.stat().st_mode & 0o777) == (32, 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_the_key_that_was_there_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    private_files.write_new(path, b"a" * 32)
    private_files.write_new(path, b"b" * 32)
    assert path.read_bytes() == b"a" * 32


@pytest.mark.parametrize("text", ["", "a", "é" * 100, "x" * 32768])
def test_the_size_of_a_secret_is_known_without_its_key(text: str) -> None:
    assert plain_size(Compartment(b"k" * 32).conceal(text, "here")) == len(text.encode())


def test_the_largest_declaration_that_is_taken_fits_a_frame() -> None:
    """Random text, for nothing to be gained by compression."""
    container_id = "ctr_" + "x" * 24

    def declared(padding: int) -> Template:
        labels = {os.urandom(60).hex(): os.urandom(128).hex() for _ in range(padding // 384)}
        return Template(
            image="i" * 512,
            env=[EnvVar(key=f"K{index}", value=os.urandom(150).hex(), secret=index % 2 == 0) for index in range(50)],
            command=[os.urandom(4000).hex()],
            volumes=[Volume(name=f"{index:02}" + "v" * 62, mount_path=f"/{index}") for index in range(32)],
            credentials=RegistryCredentials(username="u" * 1024, password="p" * 4096),
            labels=labels,
        )

    template = max(
        (declared(size) for size in range(0, 24_000, 384)), key=lambda one: (not list(problems(one)), len(one.labels))
    )
    assert not list(problems(template))
    secrets = InstanceSecrets({var.key: var.value for var in template.env if var.secret}, "u" * 1024, "p" * 4096)
    sealed = seal(SealingKey.generate().public, msgspec.msgpack.encode(secrets), b"inst")
    spec = resolve(template, container_id, 99, sealed)
    names = [f"argosy_{container_id}_99_{volume.name}" for volume in template.volumes]
    assignment = Assignment("inst_" + "x" * 24, container_id, "n" * 64, 99, 2**31, "0" * 16, "run", spec, names)
    assert len(msgspec.msgpack.encode(assignment)) > MAX_SENT_BYTES - 4096
    encode(AssignmentSet(2**62, 0, False, [assignment]))
