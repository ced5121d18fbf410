"""Pieces that many inputs share: lengths of names, ids, paging."""

from typing import Annotated

from msgspec import Meta

from shared.spec.container import Part

Id = Annotated[str, Meta(min_length=3, max_length=64, pattern=r"^[a-z]+_[A-Za-z0-9_-]+$(?!\n)")]
Description = Annotated[str, Meta(max_length=1024)]
Note = Annotated[str, Meta(max_length=1024)]


class Page(Part, frozen=True, kw_only=True):
    """`cursor` is what `X-Next-Cursor` of the page before said."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: Id | None = None


class View(Part, frozen=True, kw_only=True, omit_defaults=False):
    """An answer: every field is always there, null when it has no value."""
