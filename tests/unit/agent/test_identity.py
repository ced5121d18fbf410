"""The state directory: one agent's, its owner's, and never left half written."""

import os
from pathlib import Path

import msgspec
import pytest

from agent.errors import StateError
from agent.identity import IdentityFile
from agent.statedir import StateDir
from shared.kit.seal import SealError, SigningKey, seal
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec
from shared.wire.join import JoinToken, new_token

HUB = SigningKey.generate()


def token() -> JoinToken:
    return new_token("jt_1", HUB.public)


def enrolled(state_dir: Path) -> IdentityFile:
    identity = IdentityFile.open(state_dir, token())
    identity.enrolled("node_1")
    return identity


# Identity --------------------------------------------------------------------------------------------------------------------


def test_without_identity_and_token_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="--join"):
        IdentityFile.open(tmp_path, None)
    IdentityFile.open(tmp_path, token())
    with pytest.raises(StateError, match="--join"):
        IdentityFile.open(tmp_path, None)


def test_a_second_token_before_the_enrolment_changes_coordinator_and_not_keys(tmp_path: Path) -> None:
    first = IdentityFile.open(tmp_path, token()).current
    other = new_token("jt_2", SigningKey.generate().public)
    second = IdentityFile.open(tmp_path, other).current
    assert second.signing.public == first.signing.public
    assert second.hub_fingerprint == other.fingerprint


def test_an_enrolled_node_needs_no_token_and_ignores_one_of_its_own_coordinator(tmp_path: Path) -> None:
    enrolled(tmp_path)
    for given in (None, token()):
        current = IdentityFile.open(tmp_path, given).current
        assert (current.node_id, current.token) == ("node_1", None)


def test_another_coordinators_token_does_not_make_a_node_change_sides(tmp_path: Path) -> None:
    enrolled(tmp_path)
    with pytest.raises(StateError, match="another coordinator"):
        IdentityFile.open(tmp_path, new_token("jt_2", SigningKey.generate().public))


def test_the_epoch_only_grows(tmp_path: Path) -> None:
    identity = enrolled(tmp_path)
    for epoch in (3, 2, 7, 7, 1):
        identity.advance(epoch)
    assert identity.current.epoch == 7
    assert IdentityFile.open(tmp_path, None).current.epoch == 7


def test_the_file_is_nobody_elses_business(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        enrolled(tmp_path)
    finally:
        os.umask(old_mask)
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"], "nothing is left beside it"


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"signing": "AA==", "sealing": "AA==", "hub_fingerprint": ""}', "\x00"]
)
def test_a_damaged_file_is_reported_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(content)
    with pytest.raises(StateError, match="damaged"):
        IdentityFile.open(tmp_path, token())
    assert path.read_text() == content


def test_a_later_agents_file_is_not_misread(tmp_path: Path) -> None:
    enrolled(tmp_path)
    path = tmp_path / "identity.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | {"format": 2}))
    with pytest.raises(StateError, match="newer agent"):
        IdentityFile.open(tmp_path, None)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = enrolled(tmp_path)
    before = (tmp_path / "identity.json").read_bytes()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StateError, match="No space left"):
        identity.advance(9)
    monkeypatch.undo()
    assert (tmp_path / "identity.json").read_bytes() == before
    assert identity.current.epoch == 9, (
        "an older coordinator is turned away all the same, for as long as this agent lives"
    )
    identity.advance(10)
    assert IdentityFile.open(tmp_path, None).current.epoch == 10, "and the next session's epoch is written again"


# Secrets ---------------------------------------------------------------------------------------------------------------------


def assignment(sealed: bytes, instance_id: str = "inst_1") -> Assignment:
    return Assignment(instance_id, "ctr_1", "web", 0, 1, "0" * 16, spec=InstanceSpec("web:1", sealed=sealed))


def test_secrets_open_for_their_instance_on_their_node(tmp_path: Path) -> None:
    identity = enrolled(tmp_path)
    secrets = InstanceSecrets({"TOKEN": "s3cret"}, "user", "password")
    sealed = seal(identity.current.sealing.public, msgspec.msgpack.encode(secrets), b"inst_1")
    assert identity.unseal(assignment(sealed)) == secrets
    assert identity.unseal(assignment(b"")) == InstanceSecrets()
    with pytest.raises(SealError):
        identity.unseal(assignment(sealed, "inst_2"))
    with pytest.raises(SealError):
        identity.unseal(assignment(seal(identity.current.sealing.public, b"\xc1", b"inst_1")))


# State directory -------------------------------------------------------------------------------------------------------------


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with StateDir(tmp_path / "a" / "b") as state:
        assert state.path.stat().st_mode & 0o777 == 0o700


def test_two_agents_cannot_share_a_directory(tmp_path: Path) -> None:
    with StateDir(tmp_path), pytest.raises(StateError, match="another agent runs on it"), StateDir(tmp_path):
        raise AssertionError("two agents")
    with StateDir(tmp_path):
        pass  # free again


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError, match="state directory"), StateDir(path):
            raise AssertionError("opened")


def test_a_foreign_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(StateError, match=f"belongs to user {mine}"), StateDir(tmp_path):
        raise AssertionError("opened")
