"""Who this node is, on disk: its keys, its id, the coordinator it trusts, the highest epoch it ever saw.

The keys are written before the first connection and the id before the first hello. An agent that dies in the middle of its
enrolment comes back with the same keys, so the coordinator can tell the second try from a second node.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Self

import msgspec

from agent.errors import StateError
from shared.kit.seal import SealError, SealingKey, SigningKey
from shared.spec.instance import Assignment, InstanceSecrets
from shared.wire.join import JoinToken
from shared.wire.session import AgentIdentity

FILE_NAME = "identity.json"


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """The file. `format` is for a later agent that must read an older one's."""

    signing: bytes
    sealing: bytes
    hub_fingerprint: bytes
    node_id: str | None = None
    epoch: int = 0
    format: int = 1


class IdentityFile:
    """Holds the identity as it is on disk; every change but that of the epoch is on disk before it is seen."""

    def __init__(self, path: Path, current: AgentIdentity) -> None:
        self._path = path
        self.current = current

    @classmethod
    def open(cls, state_dir: Path, token: JoinToken | None) -> Self:
        """Read the identity, or make keys for one. Raises StateError; never replaces a file it cannot read."""
        path = state_dir / FILE_NAME
        record = _read(path)
        if record is None:
            if token is None:
                raise StateError(f"{path} does not exist: this node is not enrolled yet and needs --join (ARGOSY_JOIN)")
            signing, sealing = SigningKey.generate(), SealingKey.generate()
            opened = cls(path, AgentIdentity(signing, sealing, token.fingerprint, token=token))
            opened._write(opened.current)
            return opened
        return cls(path, _identity(path, record, token))

    def enrolled(self, node_id: str) -> None:
        self._write(replace(self.current, node_id=node_id, token=None))

    def advance(self, epoch: int) -> None:
        """Raises StateError when the disk does not take it. It counts all the same, for as long as this agent lives: that keeps
        a coordinator with an older epoch away as well as a file does, and a full disk must not keep every coordinator away."""
        if epoch > self.current.epoch:
            self.current = replace(self.current, epoch=epoch)
            self._write(self.current)

    def unseal(self, assignment: Assignment) -> InstanceSecrets:
        """What was sealed to this node for this very instance. Raises SealError."""
        sealed = assignment.spec.sealed if assignment.spec is not None else b""
        if not sealed:
            return InstanceSecrets()
        plain = self.current.sealing.open(sealed, assignment.instance_id.encode())
        try:
            return msgspec.msgpack.decode(plain, type=InstanceSecrets)
        except msgspec.DecodeError as error:
            raise SealError("sealed by this coordinator, but not what was expected") from error

    def _write(self, identity: AgentIdentity) -> None:
        record = _Record(
            signing=identity.signing.private,
            sealing=identity.sealing.private,
            hub_fingerprint=identity.hub_fingerprint,
            node_id=identity.node_id,
            epoch=identity.epoch,
        )
        try:
            _replace_file(self._path, msgspec.json.format(msgspec.json.encode(record)))
        except OSError as error:
            raise StateError(f"{self._path} cannot be written: {error.strerror}") from error
        self.current = identity


def _read(path: Path) -> _Record | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise StateError(f"{path} is damaged ({error}); restore it, or remove it and enrol this node anew") from error
    if record.format != 1:
        raise StateError(f"{path} was written by a newer agent (format {record.format})")
    return record


def _identity(path: Path, record: _Record, token: JoinToken | None) -> AgentIdentity:
    try:
        signing, sealing = SigningKey(record.signing), SealingKey(record.sealing)
    except ValueError as error:
        raise StateError(f"{path} is damaged (a key has the wrong length); restore it, or remove it") from error
    if record.node_id is None:
        if token is None:
            raise StateError(f"{path}: this node is not enrolled yet and needs --join (ARGOSY_JOIN)")
        return AgentIdentity(signing, sealing, token.fingerprint, token=token)
    if token is not None and token.fingerprint != record.hub_fingerprint:
        raise StateError(
            f"{path}: node {record.node_id} belongs to another coordinator than the join token; "
            "remove the file to enrol this machine anew"
        )
    return AgentIdentity(signing, sealing, record.hub_fingerprint, node_id=record.node_id, epoch=record.epoch)


def _replace_file(path: Path, data: bytes) -> None:
    """Old or new after a power cut, never half: write aside, sync, rename, sync the directory."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    aside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
