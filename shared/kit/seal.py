"""Keys, signatures and sealing: the few constructions Argosy uses, each from `cryptography`'s primitives.

* `SigningKey` (Ed25519) proves who speaks: nodes at each connect, the coordinator in its challenge.
* `SealingKey` (X25519) receives secrets: `seal` makes an ephemeral key pair, derives a key by HKDF over both public keys and
  encrypts with ChaCha20-Poly1305, so only the holder of the private half reads it and nobody can alter or re-bind it.
* `encrypt`/`decrypt` are symmetric, for what rests in the database (master key → organisation key → value).

`context` is authenticated but not stored: a sealed value moved to another place (another node, row or field) does not open.
"""

import os

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
ENCRYPTED_EXTRA = _NONCE_BYTES + 16
"""Bytes that `encrypt` adds: nonce and authentication tag."""


class SealError(Exception):
    """A sealed value does not open: wrong key, wrong context, or altered."""


class SigningKey:
    def __init__(self, private: bytes) -> None:
        self.private = private
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "SigningKey":
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is `public`'s over `message`; a malformed key or signature is simply not one."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class SealingKey:
    def __init__(self, private: bytes) -> None:
        self.private = private
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "SealingKey":
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """The plaintext of `seal(self.public, …, context)`. Raises SealError."""
        ephemeral, body = sealed[:KEY_BYTES], sealed[KEY_BYTES:]
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            return decrypt(_derive(shared, ephemeral, self.public), body, context)
        except ValueError as error:
            raise SealError("malformed sealed value") from error


def seal(recipient: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Encrypt for the holder of `recipient`'s private half: ephemeral public key, nonce, ciphertext. Raises SealError."""
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    except ValueError as error:
        raise SealError("malformed recipient key") from error
    return public + encrypt(_derive(shared, public, recipient), plaintext, context)


def encrypt(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plaintext, context)


def decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """The plaintext of `encrypt(key, …, context)`. Raises SealError."""
    if len(sealed) < _NONCE_BYTES:
        raise SealError("malformed sealed value")
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except InvalidTag as error:
        raise SealError("wrong key or context, or altered") from error


def _derive(shared: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"argosy seal v1" + ephemeral + recipient).derive(shared)
