"""Where the master key comes from: a file of the data directory, the environment, or a command that fetches it.

Exactly one of them counts. Two at once are refused rather than ranked: a coordinator that starts with the wrong key has lost
nothing, but one that silently made a new file beside the real key soon has. A command runs once, at the start, without a shell;
its output is the key and is shown nowhere, not even when it is wrong.
"""

import os
import selectors
import shlex
import signal
import subprocess
import time
from base64 import b64decode
from binascii import Error as BinasciiError
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.errors import StartError
from coordinator.store.vault import read_key
from shared.kit.seal import KEY_BYTES

FILE = "master.key"
COMMAND_SECONDS = 30.0
_MOST_OUTPUT = 4096
_FORMS = f"{KEY_BYTES} bytes, as base64, hexadecimal or raw"


@dataclass(frozen=True)
class Sources:
    """What the settings say. `text` is base64; `next_text` and `next_command` give `rotate-key` the key to change to."""

    text: str = field(default="", repr=False)
    command: str = ""
    next_text: str = field(default="", repr=False)
    next_command: str = ""


@dataclass(frozen=True)
class MasterKey:
    """`file`: where it is kept, None when somebody else keeps it."""

    key: bytes = field(repr=False)
    file: Path | None


def load(sources: Sources, data_dir: Path, *, make: bool = True, patience: float = COMMAND_SECONDS) -> MasterKey:
    """`make`: a first start, which makes the file. Raises StartError or VaultError."""
    path = data_dir / FILE
    elsewhere = _given("ARGOSY_MASTER_KEY", sources.text, sources.command, patience)
    if elsewhere is None:
        if not make and not path.exists():
            raise StartError(f"ARGOSY_DATA_DIR: there is no master key in {data_dir}, and none is given otherwise")
        return MasterKey(read_key(path), path)
    if path.exists():
        name = "ARGOSY_MASTER_KEY" if sources.text else "ARGOSY_MASTER_KEY_COMMAND"
        raise StartError(
            f"{name}: there is a master key in {path} too; remove one of them, and keep a copy of the other"
        )
    return MasterKey(elsewhere, None)


def load_next(sources: Sources, patience: float = COMMAND_SECONDS) -> bytes | None:
    """The key to change to, None when none was given. Raises StartError."""
    return _given("ARGOSY_MASTER_KEY_NEXT", sources.next_text, sources.next_command, patience)


def read(text: bytes) -> bytes | None:
    """The key in what a file, a variable or a command says; None when it is none."""
    if len(text) == KEY_BYTES:
        return text
    words = text.strip()
    try:
        if len(words) == 2 * KEY_BYTES:
            return bytes.fromhex(words.decode("ascii"))
        key = b64decode(words, validate=True)
    except (BinasciiError, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def _given(name: str, text: str, command: str, patience: float) -> bytes | None:
    if text and command:
        raise StartError(f"{name} and {name}_COMMAND: give one of them, not both")
    if text:
        key = read(text.encode())
        if key is None:
            raise StartError(f"{name}: must be {_FORMS}")
        return key
    return _fetch(f"{name}_COMMAND", command, patience) if command else None


def _fetch(name: str, command: str, patience: float) -> bytes:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise StartError(f"{name}: {error}") from error
    if not words:
        raise StartError(f"{name}: names no program")
    output = _run(name, words, patience)
    key = read(output)
    if key is None:
        raise StartError(f"{name}: {words[0]} must print {_FORMS}, and nothing else")
    return key


def _run(name: str, words: list[str], patience: float) -> bytes:
    """What it prints. A group of its own, so that what it started ends with it."""
    try:
        process = subprocess.Popen(  # noqa: S603 — the operator's own command, split into words, without a shell
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise StartError(f"{name}: {words[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            output = _collect(process, time.monotonic() + patience)
            if output is not None and len(output) <= _MOST_OUTPUT:
                status = process.wait(patience)
                if status != 0:
                    raise StartError(f"{name}: {words[0]} ended with {status}")
        except subprocess.TimeoutExpired:
            output = None
        finally:
            _end(process)
    if output is None:
        raise StartError(f"{name}: {words[0]} did not end within {patience:.0f} s")
    return output


def _collect(process: "subprocess.Popen[bytes]", until: float) -> bytes | None:
    """All it prints, or as much as can be no key; None when it took too long."""
    assert process.stdout is not None
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= _MOST_OUTPUT:
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            part = os.read(process.stdout.fileno(), _MOST_OUTPUT)
            if not part:
                break
            output += part
    return output


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
