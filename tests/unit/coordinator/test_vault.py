"""The vault: which key opens what, and that unlocking an organisation again costs next to nothing."""

import timeit

import pytest

from coordinator.store import vault as module
from coordinator.store.vault import Vault, VaultError

OLD, NEW = b"o" * 32, b"n" * 32


def test_an_organisation_is_unlocked_once() -> None:
    vault = Vault(OLD)
    sealed = vault.new_key("org_1")
    first = vault.unlock(sealed, "org_1")
    assert vault.unlock(sealed, "org_1") is first
    fresh = min(timeit.repeat(lambda: Vault(OLD).unlock(sealed, "org_1"), number=500, repeat=5))
    again = min(timeit.repeat(lambda: vault.unlock(sealed, "org_1"), number=500, repeat=5))
    assert again < fresh / 2


def test_another_row_is_another_key() -> None:
    vault = Vault(OLD)
    concealed = vault.unlock(vault.new_key("org_1"), "org_1").conceal("hush", "here")
    with pytest.raises(Exception, match="wrong key"):
        vault.unlock(vault.new_key("org_1"), "org_1").reveal(concealed, "here")
    with pytest.raises(VaultError):
        vault.unlock(vault.new_key("org_1"), "org_2")


def test_no_more_than_so_many_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_OPEN", 2)
    vault = Vault(OLD)
    sealed = {key: vault.new_key(key) for key in ("a", "b", "c")}
    kept = {key: vault.unlock(value, key) for key, value in sealed.items()}
    assert vault.unlock(sealed["c"], "c") is kept["c"]
    assert vault.unlock(sealed["a"], "a") is not kept["a"]


def test_a_successor_reads_both_and_writes_anew() -> None:
    vault = Vault(OLD)
    before = vault.wrap("x", b"1")
    vault.succeed(NEW)
    vault.succeed(NEW)  # repeating it forgets nothing
    assert vault.unwrap("x", before) == b"1"
    after = vault.rewrapped("x", before)
    assert after is not None
    assert vault.rewrapped("x", after) is None
    with pytest.raises(VaultError):
        Vault(OLD).unwrap("x", after)
    vault.retire()
    with pytest.raises(VaultError):
        vault.unwrap("x", before)
    assert vault.unwrap("x", after) == b"1"


def test_it_shows_no_key() -> None:
    vault = Vault(OLD)
    compartment = vault.unlock(vault.new_key("org_1"), "org_1")
    assert "ooo" not in repr(vault)
    assert repr(compartment).startswith("<coordinator.store.vault.Compartment object")
