"""Any frame at all, from the frames' own declarations: what the types admit is what is generated."""

from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as shape

from shared.wire.frames import AgentFrame, HubFrame

_MOST_ITEMS = 4
_INT_BITS = 2**63 - 1


def agent_frames() -> st.SearchStrategy[AgentFrame]:
    return st.one_of([_instances(kind) for kind in get_args(AgentFrame)])


def hub_frames() -> st.SearchStrategy[HubFrame]:
    return st.one_of([_instances(kind) for kind in get_args(HubFrame)])


def _instances(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    declared = shape.type_info(kind)
    assert isinstance(declared, shape.StructType)
    return _struct(declared)


def _struct(declared: shape.StructType) -> st.SearchStrategy[Any]:
    fields = {field.name: _values(field.type) for field in declared.fields}
    return st.builds(declared.cls, **fields)


def _values(declared: shape.Type) -> st.SearchStrategy[Any]:
    match declared:
        case shape.StructType():
            return _struct(declared)
        case shape.UnionType():
            return st.one_of([_values(part) for part in declared.types])
        case shape.ListType():
            return st.lists(
                _values(declared.item_type), min_size=declared.min_length or 0, max_size=_at_most(declared.max_length)
            )
        case shape.DictType():
            return st.dictionaries(_values(declared.key_type), _values(declared.value_type), max_size=_MOST_ITEMS)
        case shape.TupleType():
            return st.tuples(*map(_values, declared.item_types))
        case _:
            return _scalars(declared)


def _scalars(declared: shape.Type) -> st.SearchStrategy[Any]:
    match declared:
        case shape.IntType():
            low, high = declared.ge, declared.le
            return st.integers(-_INT_BITS if low is None else int(low), _INT_BITS if high is None else int(high))
        case shape.FloatType():
            return st.floats(allow_nan=False)
        case shape.BoolType():
            return st.booleans()
        case shape.NoneType():
            return st.none()
        case shape.BytesType():
            return st.binary(min_size=declared.min_length or 0, max_size=min(declared.max_length or 64, 256))
        case shape.StrType():
            return _texts(declared)
        case shape.LiteralType():
            return st.sampled_from(declared.values)
        case shape.EnumType():
            return st.sampled_from(declared.cls)
        case _:
            raise AssertionError(f"no strategy for {declared}: a frame got a kind of field that is new here")


def _texts(declared: shape.StrType) -> st.SearchStrategy[str]:
    longest = declared.max_length or 40
    if declared.pattern is None:
        return st.text(min_size=declared.min_length or 0, max_size=min(longest, 40))
    matching = st.from_regex(declared.pattern, alphabet=st.characters(codec="utf-8"))
    return matching.filter(lambda text: (declared.min_length or 0) <= len(text) <= longest)


def _at_most(limit: int | None) -> int:
    return _MOST_ITEMS if limit is None else min(limit, _MOST_ITEMS)
