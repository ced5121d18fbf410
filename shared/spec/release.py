"""A release: the immutable record that a deployment moves a container to, and that a rollback returns to."""

import hashlib

import msgspec

from shared.spec.container import Template

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def spec_hash(template: Template) -> str:
    """The identity of a template's content, 16 hex digits. Two releases with equal hashes run the same thing; secrets count by
    their stored, encrypted form, so re-entering one is a change and reading one back is not."""
    return hashlib.sha256(_ENCODER.encode(template)).hexdigest()[:16]
