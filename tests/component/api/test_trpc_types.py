"""The generated TypeScript module, as text. That compilers and clients take it is tested with them."""

import re
from dataclasses import replace
from enum import Enum
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from coordinator.doors.typescript.comments import comment
from coordinator.doors.typescript.module import render, tree
from coordinator.doors.typescript.structs import Types
from coordinator.procedures.inputs import View
from coordinator.procedures.table import TABLE
from shared.spec.container import Part
from tests.component.api.caller import Api


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Leaf(Part, frozen=True):
    """A leaf."""

    size: Annotated[int, Meta(ge=1, le=9, description="in centimetres")] = 3
    veins: list[Literal["a", "b"]] = []
    parent: "Twig | None" = None


class Twig(Part, frozen=True):
    leaves: dict[str, Leaf] = {}


class Seen(View, frozen=True):
    """Ends a comment: */"""

    leaf: Leaf | None
    colour: Colour
    both: tuple[int, str]
    any_thing: object
    late: str | msgspec.UnsetType = msgspec.UNSET
    known: bool = False


class Tagged(Struct, frozen=True, tag="tagged", tag_field="type"):
    odd_key: Annotated[int, Meta(ge=0)] = msgspec.field(name="odd-key", default=0)


def declarations(*roots: tuple[type, Literal["input", "output"]]) -> dict[str, str]:
    found = {}
    for text in Types(roots).declarations():
        match = re.search(r"export type (\w+) = (.*);\n$", text, re.DOTALL)
        assert match is not None
        found[match[1]] = re.sub(r"\s+", " ", re.sub(r"/\*\*.*?\*/", "", match[2]))
    return found


def test_what_each_type_becomes() -> None:
    found = declarations((Seen, "output"))
    assert found["Seen"] == (
        '{ leaf: Leaf | null; colour: "red" | "green"; both: [number, string]; anyThing: unknown; late?: string; '
        "known: boolean; }"
    )
    assert found["Leaf"] == '{ size?: number; veins?: Array<"a" | "b">; parent?: Twig | null; }'
    assert found["Twig"] == "{ leaves?: Record<string, Leaf>; }"
    assert declarations((Tagged, "output")) == {"Tagged": '{ type: "tagged"; "odd-key": number; }'}


def test_a_struct_that_looks_different_from_both_sides_has_two_names() -> None:
    both = declarations((Seen, "output"), (Seen, "input"), (Leaf, "input"))
    assert set(both) == {"Seen", "SeenInput", "Leaf", "Twig"}
    assert "known: boolean" in both["Seen"]
    assert "known?: boolean" in both["SeenInput"]
    assert set(declarations((Seen, "input"))) == {"Seen", "Leaf", "Twig"}


def test_two_structs_of_one_name_are_told_apart() -> None:
    other = msgspec.defstruct("Leaf", [("other", int)], module="some.where_else")
    assert set(declarations((Leaf, "output"), (other, "output"))) == {"TestTrpcTypesLeaf", "WhereElseLeaf", "Twig"}


def test_what_types_have_to_say_becomes_doc_comments() -> None:
    text = "".join(Types([(Seen, "output")]).declarations())
    assert "/** Ends a comment: *\\/ */\nexport type Seen" in text
    assert "  /** In centimetres. 1 to 9, by default 3 */\n  size?: number;" in text
    assert comment("one\n\ntwo", "  ") == "  /**\n   * one\n   *\n   * two\n   */\n"
    assert comment("") == ""


def test_a_type_without_a_rendering_is_found_by_the_tests_and_not_by_users() -> None:
    with pytest.raises(KeyError):
        list(Types([(msgspec.defstruct("Odd", [("x", complex)]), "output")]).declarations())


def test_every_procedure_is_there_and_every_name_is_declared(api: Api) -> None:
    text = render(TABLE)
    assert text == render(dict(reversed(TABLE.items())))
    router = text[text.index("export type AppRouter") : text.index("export type AppStreams")]
    for procedure in TABLE.values():
        kind = procedure.kind.capitalize()
        assert re.search(rf"\b{procedure.name.rpartition('.')[2]}: {kind}<", router), procedure.name
    declared = re.findall(r"^(?:export )?type (\w+)", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    code = re.sub(r"/\*\*.*?\*/|//.*?$|'[^']*'|\"[^\"]*\"", "", text, flags=re.DOTALL | re.MULTILINE)
    used = set(re.findall(r"\b[A-Z]\w+\b", code))
    known = {
        "AnyRouter",
        "Array",
        "AsyncIterable",
        "In",
        "Kind",
        "Omit",
        "Out",
        "Procedures",
        "Promise",
        "Record",
        "Event",
    }
    assert used - known <= set(declared)


def test_a_name_of_three_words_is_a_router_in_a_router() -> None:
    one = replace(TABLE["system.version"], name="provisioner.nodePool.add")
    assert tree([one]) == {"provisioner": {"nodePool": {"add": one}}}
    with pytest.raises(AssertionError, match="a procedure is no router"):
        tree([one, replace(one, name="provisioner.nodePool.add.more")])


async def test_it_is_served_with_a_tag_and_to_anybody(api: Api) -> None:
    first = await api.client.get("/api/trpc.d.ts")
    assert first.status_code == 200
    assert first.text == render(TABLE)
    assert first.headers["content-type"].startswith("application/typescript")
    assert "max-age=" in first.headers["cache-control"]
    again = await api.client.get("/api/trpc.d.ts", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = await api.client.get("/api/trpc.d.ts", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200
