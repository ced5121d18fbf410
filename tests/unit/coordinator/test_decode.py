"""What a caller reads when an input is wrong: the field and the rule, whatever the encoding was."""

import pytest

from coordinator.doors.decode import MAX_BODY_BYTES, from_json, from_query
from coordinator.errors import BadRequest, TooLarge
from coordinator.procedures.container import CreateContainer, ListContainers, UpdateContainer

GOOD = b'"projectId": "proj_1", "name": "web", "image": "web:1"'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{" + GOOD + b', "replicas": -1}', "replicas: expected int >= 0"),
        (b"{" + GOOD + b', "replicas": 101}', "replicas: expected int <= 100"),
        (b"{" + GOOD + b', "replicas": "3"}', "replicas: expected int, got str"),
        (b"{" + GOOD + b', "replicas": true}', "replicas: expected int, got bool"),
        (b"{" + GOOD + b', "colour": "red"}', "colour: unknown field"),
        (b"{" + GOOD + b', "healthCheck": {"port": 70000}}', "healthCheck.port: expected int <= 65535"),
        (b"{" + GOOD + b', "healthCheck": {"colour": 1}}', "healthCheck.colour: unknown field"),
        (b"{" + GOOD + b', "env": [{"key": "A"}, {"value": "x"}]}', "env[1].key: is required"),
        (b'{"projectId": "proj_1", "image": "web:1"}', "name: is required"),
        (b'{"projectId": "x", "name": "web"}', "projectId: expected str of length >= 3"),
        (b"[]", "body: expected object, got array"),
    ],
)
def test_a_wrong_field_is_named_with_its_rule(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        from_json(body, CreateContainer)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"name": }', b"[" * 100_000, b'{"a":' * 50_000, b'{"projectId": "\\ud800"}']
)
def test_what_is_not_json_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(BadRequest):
        from_json(body, CreateContainer)


def test_nul_characters_are_refused() -> None:
    with pytest.raises(BadRequest, match="NUL"):
        from_json(b"{" + GOOD + b', "command": ["a\\u0000b"]}', CreateContainer)


def test_a_body_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge):
        from_json(b" " * (MAX_BODY_BYTES + 1), CreateContainer)


def test_a_query_string_is_read_by_its_fields_types() -> None:
    read = from_query([("projectId", "proj_1"), ("limit", "7")], ListContainers)
    assert isinstance(read, ListContainers)
    assert read.limit == 7


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("projectId", "proj_1"), ("limit", "0")], "limit: expected int >= 1"),
        ([("projectId", "proj_1"), ("limit", "many")], "limit: expected int, got str"),
        ([("projectId", "proj_1"), ("projectId", "proj_2")], "projectId: given twice"),
        ([("projectId", "proj_1"), ("colour", "red")], "colour: unknown field"),
        ([], "projectId: is required"),
    ],
)
def test_a_wrong_query_names_the_field(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        from_query(pairs, ListContainers)
    assert caught.value.message == message


def test_an_update_takes_any_field_of_a_declaration_and_no_other() -> None:
    read = from_json(b'{"containerId": "ctr_1", "healthCheck": null, "replicas": 5}', UpdateContainer)
    assert read.health_check is None  # type: ignore[attr-defined]
    with pytest.raises(BadRequest, match="colour: unknown field"):
        from_json(b'{"containerId": "ctr_1", "colour": 1}', UpdateContainer)
