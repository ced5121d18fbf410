"""Where the master key comes from: one source, in any of three forms, and a reason for everything else."""

import base64
import os
import time
from pathlib import Path

import pytest

from coordinator import master_key
from coordinator.errors import StartError
from coordinator.master_key import Sources
from coordinator.settings import read_settings
from coordinator.store.vault import VaultError

KEY = bytes(range(1, 33))
BASE64 = base64.b64encode(KEY).decode()


@pytest.mark.parametrize("text", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n", BASE64.encode() + b"\n"])
def test_a_key_is_read_in_each_of_its_forms(text: bytes) -> None:
    assert master_key.read(text) == KEY


@pytest.mark.parametrize("text", [b"", b"\n", KEY[:31], KEY + b"x", b"zz" * 32, BASE64.encode()[:-2], b"\xff" * 64])
def test_anything_else_is_none(text: bytes) -> None:
    assert master_key.read(text) is None


def test_a_file_is_made_at_the_first_start_and_only_then(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="there is no master key"):
        master_key.load(Sources(), tmp_path, make=False)
    made = master_key.load(Sources(), tmp_path)
    assert made.file == tmp_path / "master.key"
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert master_key.load(Sources(), tmp_path, make=False) == made
    assert made.key.hex() not in repr(made)


def test_the_environment_and_a_command_give_it_too(tmp_path: Path) -> None:
    settings = read_settings([], {"ARGOSY_MASTER_KEY": BASE64})
    assert master_key.load(settings.master_key, tmp_path).key == KEY
    assert BASE64 not in repr(settings)
    script = tmp_path / "fetch me"
    script.write_text(f"#!/bin/sh\ntest \"$1\" = 'a b' && echo {KEY.hex()}\n")
    script.chmod(0o700)
    given = read_settings(["--master-key-command", f"'{script}' 'a b'"], {})
    found = master_key.load(given.master_key, tmp_path)
    assert (found.key, found.file) == (KEY, None)
    assert not (tmp_path / "master.key").exists(), "no file is made beside a key from elsewhere"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ARGOSY_MASTER_KEY": "short"}, "ARGOSY_MASTER_KEY: must be 32 bytes"),
        ({"ARGOSY_MASTER_KEY": BASE64, "ARGOSY_MASTER_KEY_COMMAND": "true"}, "give one of them, not both"),
        ({"ARGOSY_MASTER_KEY_COMMAND": "no-such-program-here"}, "no-such-program-here cannot be run: No such file"),
        ({"ARGOSY_MASTER_KEY_COMMAND": "false"}, "ARGOSY_MASTER_KEY_COMMAND: false ended with 1"),
        ({"ARGOSY_MASTER_KEY_COMMAND": "echo sesame-42"}, "echo must print 32 bytes"),
        ({"ARGOSY_MASTER_KEY_COMMAND": "yes"}, "yes must print"),
        ({"ARGOSY_MASTER_KEY_COMMAND": "'"}, "ARGOSY_MASTER_KEY_COMMAND: No closing quotation"),
        ({"ARGOSY_MASTER_KEY_COMMAND": " "}, "names no program"),
    ],
)
def test_a_wrong_source_is_one_line_without_the_key(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    with pytest.raises(StartError, match=message) as caught:
        master_key.load(read_settings([], environ).master_key, tmp_path)
    assert "sesame" not in str(caught.value)
    assert BASE64 not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_another_source_are_two(tmp_path: Path) -> None:
    master_key.load(Sources(), tmp_path)
    with pytest.raises(StartError, match=r"ARGOSY_MASTER_KEY: there is a master key in .* too"):
        master_key.load(Sources(text=BASE64), tmp_path)


def test_a_broken_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_bytes(KEY[:5])
    with pytest.raises(VaultError, match="has 5 bytes"):
        master_key.load(Sources(), tmp_path)


def test_a_command_that_hangs_ends_with_all_it_started(tmp_path: Path) -> None:
    pid, script = tmp_path / "pid", tmp_path / "hang"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pid}\nwait\n")
    script.chmod(0o700)
    began = time.monotonic()
    with pytest.raises(StartError, match="did not end within 2 s"):
        master_key.load(Sources(command=str(script)), tmp_path, patience=2.0)
    assert time.monotonic() - began < 30
    until = time.monotonic() + 10
    while time.monotonic() < until and _alive(int(pid.read_text())):
        time.sleep(0.01)
    assert not _alive(int(pid.read_text()))


def test_the_next_key_is_read_alike() -> None:
    settings = read_settings(["rotate-key"], {"ARGOSY_MASTER_KEY_NEXT": BASE64})
    assert settings.action == "rotate-key"
    assert master_key.load_next(settings.master_key) == KEY
    assert master_key.load_next(Sources()) is None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
