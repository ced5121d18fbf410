"""A release: the immutable record that a deployment moves a container to, and that a rollback returns to."""

import hashlib
from collections.abc import Sequence

import msgspec

from shared.spec.container import EnvVar, Template

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


class Inherited(EnvVar, frozen=True):
    """A variable that came from the environment, the project or the organisation, as it was when the release was made. `origin`: id
    and version there. A secret one is concealed for the container anew, so it is by its origin that two are compared."""

    origin: str = ""

    @property
    def identity(self) -> tuple[str, bool, str]:
        return self.key, self.secret, self.origin if self.secret else self.value


def spec_hash(template: Template, variables: Sequence[Inherited] = ()) -> str:
    """The identity of a release's content, 16 hex digits. Two releases with equal hashes run the same thing; secrets count by
    their stored, encrypted form, so re-entering one is a change and reading one back is not."""
    content = hashlib.sha256(_ENCODER.encode(template))
    if variables:
        content.update(_ENCODER.encode(sorted(each.identity for each in variables)))
    return content.hexdigest()[:16]


def overlaid(template: Template, variables: Sequence[Inherited]) -> Template:
    """The template with what it inherits: its own variables come before those of any place."""
    if not variables:
        return template
    own = {var.key for var in template.env}
    env = [EnvVar(key=each.key, value=each.value, secret=each.secret) for each in variables if each.key not in own]
    return msgspec.structs.replace(template, env=[*env, *template.env])
