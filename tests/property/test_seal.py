"""What is sealed opens for one key, in one place, unaltered; nothing else does, and nothing makes it raise anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kit.seal import KEY_BYTES, SealError, SealingKey, SigningKey, decrypt, encrypt, seal, verify

SEALING = SealingKey.generate()
OTHER_SEALING = SealingKey.generate()
SIGNING = SigningKey.generate()
KEY = bytes(range(KEY_BYTES))
TEXTS = st.binary(max_size=300)


@given(plaintext=TEXTS, context=TEXTS)
def test_the_recipient_reads_what_was_sealed(plaintext: bytes, context: bytes) -> None:
    sealed = seal(SEALING.public, plaintext, context)
    assert SEALING.open(sealed, context) == plaintext
    assert len(plaintext) < 8 or plaintext not in sealed


@given(plaintext=TEXTS, context=TEXTS)
def test_nobody_else_reads_it_and_nowhere_else(plaintext: bytes, context: bytes) -> None:
    sealed = seal(SEALING.public, plaintext, context)
    with pytest.raises(SealError):
        OTHER_SEALING.open(sealed, context)
    with pytest.raises(SealError):
        SEALING.open(sealed, context + b"!")


@given(plaintext=TEXTS, position=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_any_altered_byte_is_noticed(plaintext: bytes, position: int, mask: int) -> None:
    for damage, opened in (
        (bytearray(seal(SEALING.public, plaintext, b"here")), SEALING.open),
        (bytearray(encrypt(KEY, plaintext, b"here")), lambda data, context: decrypt(KEY, data, context)),
    ):
        # The top bit of an X25519 key is ignored by its definition, but the key is bound as it was sent.
        damage[position % len(damage)] ^= mask
        with pytest.raises(SealError):
            opened(bytes(damage), b"here")


@given(plaintext=TEXTS, cut=st.floats(0, 0.999))
def test_any_part_of_it_is_refused(plaintext: bytes, cut: float) -> None:
    sealed = seal(SEALING.public, plaintext, b"here")
    with pytest.raises(SealError):
        SEALING.open(sealed[: int(len(sealed) * cut)], b"here")


@given(data=st.binary(max_size=200), context=TEXTS)
def test_garbage_is_refused(data: bytes, context: bytes) -> None:
    with pytest.raises(SealError):
        SEALING.open(data, context)
    with pytest.raises(SealError):
        decrypt(KEY, data, context)


@given(recipient=st.one_of(st.binary(max_size=40), st.just(bytes(32))))
def test_sealing_to_what_is_no_key_says_so_or_works(recipient: bytes) -> None:
    try:
        sealed = seal(recipient, b"plain", b"here")
    except SealError:
        return
    assert len(recipient) == KEY_BYTES
    assert b"plain" not in sealed


def test_two_seals_of_one_text_differ() -> None:
    assert seal(SEALING.public, b"same", b"") != seal(SEALING.public, b"same", b"")
    assert encrypt(KEY, b"same", b"") != encrypt(KEY, b"same", b"")


def test_keys_come_back_from_their_private_half() -> None:
    assert SealingKey(SEALING.private).public == SEALING.public
    assert SigningKey(SIGNING.private).public == SIGNING.public


@given(message=TEXTS, other=TEXTS)
def test_a_signature_is_for_one_message(message: bytes, other: bytes) -> None:
    signature = SIGNING.sign(message)
    assert verify(SIGNING.public, signature, message)
    assert verify(SIGNING.public, signature, other) == (message == other)


@given(public=st.binary(max_size=40), signature=st.binary(max_size=80), message=TEXTS)
def test_verifying_garbage_is_simply_false(public: bytes, signature: bytes, message: bytes) -> None:
    assert not verify(public, signature, message)
    assert not verify(SIGNING.public, signature, message)
