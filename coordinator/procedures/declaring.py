"""From what a user writes to what is stored: checking a declaration, overlaying an update, and hiding its secrets.

Secret values are concealed before they reach a row and masked before they reach an answer; the plaintext exists only inside a
request and inside the frame to the node. Writing the mask back keeps the stored value, so an answer can be edited and returned.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.errors import BadRequest
from coordinator.store.vault import REGISTRY_KEY, Compartment, env_context, plain_size
from shared.spec.container import MASK, EnvVar, RegistryCredentials, Template, problems
from shared.spec.image import canonical, registry_of
from shared.spec.release import Inherited, overlaid


def check(template: Template, stored: Template | None) -> None:
    """Raises BadRequest with every broken rule that spans fields. `stored`: where masks and untouched secrets come from."""
    found = [f"{field}: {rule}" for field, rule in problems(_as_plain(template, stored))]
    if found:
        raise BadRequest("; ".join(found))


def check_credentials(template: Template, stored: Template) -> None:
    """Raises BadRequest when a stored registry password would go to another registry than the one it was given for."""
    now, before = template.credentials, stored.credentials
    if now is None or before is None or now.password not in (MASK, before.password):
        return
    there, here = registry_of(template.image), registry_of(stored.image)
    if canonical(there) != canonical(here):
        raise BadRequest(f"credentials: are to be given again for {there}, or null; those stored are for {here}")


def check_whole(template: Template, inherited: Sequence[Inherited]) -> None:
    """Raises BadRequest when what `template` inherits does not go with it. `template` is in its resting form, `inherited` plain."""
    known = set(problems(_as_plain(template, template)))
    whole = problems(overlaid(_as_plain(template, template), inherited))
    found = [rule for field, rule in dict.fromkeys(whole) if (field, rule) not in known]
    if found:
        raise BadRequest(f"variables: with those inherited, {'; '.join(found)}")


def overlay(stored: Template, changes: dict[str, Any]) -> Template:
    """`stored` with whole fields replaced. `changes` is keyed by attribute name; its values have their fields' types already."""
    return msgspec.structs.replace(stored, **changes)


def conceal(template: Template, compartment: Compartment, container_id: str, stored: Template | None) -> Template:
    """`template` with every secret in its resting form. Raises BadRequest for a mask where nothing is stored."""
    known = {var.key: var.value for var in stored.env if var.secret} if stored else {}
    env = [_conceal_var(var, compartment, container_id, known) for var in template.env]
    credentials = template.credentials
    if credentials is not None:
        old = stored.credentials.password if stored and stored.credentials else None
        password = _conceal_text(credentials.password, compartment, env_context(container_id, REGISTRY_KEY), old)
        if password is None:
            raise BadRequest(f"credentials.password: {MASK!r} stands for a stored password, and there is none")
        credentials = RegistryCredentials(username=credentials.username, password=password)
    return msgspec.structs.replace(template, env=env, credentials=credentials)


def mask(template: Template) -> Template:
    """`template` as an answer may show it."""
    env = [EnvVar(key=var.key, value=MASK, secret=True) if var.secret else var for var in template.env]
    credentials = template.credentials
    if credentials is not None:
        credentials = RegistryCredentials(username=credentials.username, password=MASK)
    return msgspec.structs.replace(template, env=env, credentials=credentials)


def changed_fields(declared: Template, in_force: Template) -> list[str]:
    """Names, as in the API, of what a deploy would change."""
    return [
        item.encode_name
        for item in msgspec.structs.fields(Template)
        if getattr(declared, item.name) != getattr(in_force, item.name)
    ]


def _as_plain(template: Template, stored: Template | None) -> Template:
    """`template` with a stand-in of the right length for every stored secret: what the rules on sizes measure is the plaintext."""
    known = {var.key: var.value for var in stored.env if var.secret} if stored else {}
    env = [
        EnvVar(key=var.key, value=_stand_in(var.value, known.get(var.key)), secret=True) if var.secret else var
        for var in template.env
    ]
    credentials = template.credentials
    if credentials is not None:
        old = stored.credentials.password if stored and stored.credentials else None
        credentials = RegistryCredentials(username=credentials.username, password=_stand_in(credentials.password, old))
    return msgspec.structs.replace(template, env=env, credentials=credentials)


def _stand_in(text: str, stored: str | None) -> str:
    return "x" * plain_size(stored) if stored is not None and text in (MASK, stored) else text


def _conceal_var(var: EnvVar, compartment: Compartment, container_id: str, known: dict[str, str]) -> EnvVar:
    if not var.secret:
        return var
    value = _conceal_text(var.value, compartment, env_context(container_id, var.key), known.get(var.key))
    if value is None:
        raise BadRequest(f"env.{var.key}: {MASK!r} stands for a stored secret, and there is none")
    return EnvVar(key=var.key, value=value, secret=True)


def _conceal_text(text: str, compartment: Compartment, context: str, stored: str | None) -> str | None:
    if text in (MASK, stored):  # untouched by an update: it is in its resting form already
        return stored
    return compartment.conceal(text, context)
