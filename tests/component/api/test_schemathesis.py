"""Schemathesis against the whole document: whatever it sends, no answer is a defect, and every one is as the document says.

What it makes up names nothing that exists, so well-formed ids are replaced by real ones most of the time. Deterministic: the same
document gives the same calls. Both doors read a procedure's input with the same code: its edges are looked for on the resource
paths, the procedures' own get some calls of every kind.
"""

import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from coordinator.doors.openapi.document import document
from coordinator.procedures.table import TABLE
from tests.component.api.world import World, world_on
from tests.conftest import DATABASES
from tests.hosts.postgres import Postgres

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
]
REFUSED = ("400", "401", "403", "404", "409", "412", "413")
REPLACED_OF_TEN = 8
_ID = re.compile(r"[a-z]+_[A-Za-z0-9_-]+")
MOST_EDGES = 150
Operations = dict[str, APIOperation[Any, Any, Any, Any]]
_STREAMS = {name for name, one in TABLE.items() if one.event is not None}


def calls(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _without_headers(whole: dict[str, Any]) -> dict[str, Any]:
    """Keys and conditions are the same header on every operation: once is enough, and that is on the procedures."""
    for path in whole["paths"].values():
        for one in path.values():
            one["parameters"] = [parameter for parameter in one["parameters"] if "$ref" not in parameter]
    return whole


def _operations(whole: dict[str, Any]) -> Operations:
    """By operation id."""
    config = SchemathesisConfig()
    config.projects.default.checks.negative_data_rejection.expected_statuses = list(REFUSED)
    config.projects.default.generation.update(with_security_parameters=False)
    schema = schemathesis.openapi.from_dict(whole, config=config)
    found = [cast("Any", one).ok() for one in schema.get_all_operations()]
    return {one.definition.raw["operationId"]: one for one in found}


DOCUMENT = document(TABLE.values())
NAMES = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
RESOURCES = [name for name in NAMES if not name.startswith("procedure.")]
PROCEDURES = [name for name in NAMES if re.fullmatch(r"procedure\.(?:.*(?<!\.post)|container\..*)", name)]
"""By the documented method; POST instead of it is one line of the door, and one router shows that."""


@pytest.fixture(scope="module")
def operations() -> Operations:
    return _operations(_without_headers(document(TABLE.values())))


@pytest.fixture(scope="module")
def whole_operations() -> Operations:
    return _operations(DOCUMENT)


@pytest.fixture(scope="module")
def sqlite_world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("world") / "argosy.db"
    shutil.copyfile(sqlite_template, path)
    with world_on(f"sqlite:///{path}") as world:
        yield world


@pytest.fixture(scope="module")
def postgresql_world(postgres: Postgres, postgresql_template: str) -> Iterator[World]:
    with world_on(postgres.create_database("fuzzed", template=postgresql_template)) as world:
        yield world
    postgres.drop_database("fuzzed")


@pytest.mark.parametrize("name", RESOURCES)
def test_the_edges_of_every_resource(name: str, operations: Operations, sqlite_world: World) -> None:
    operation = operations[name]
    made = operation.schema.iter_coverage_cases(
        operation, generation_modes=list(GenerationMode), generation_config=GenerationConfig()
    )
    sent = 0
    for case in islice(made, MOST_EDGES):
        send(case, sqlite_world)
        sent += 1
    assert sent, "even an operation without input is asked for by methods it does not have"


@pytest.mark.parametrize("name", PROCEDURES)
def test_some_calls_of_every_procedure(name: str, whole_operations: Operations, sqlite_world: World) -> None:
    fuzz(whole_operations[name], 3, sqlite_world)


if "postgresql" in DATABASES:  # its errors are other errors: a look at each operation is enough to see them

    @pytest.mark.parametrize("name", RESOURCES)
    def test_a_look_at_every_resource(name: str, operations: Operations, postgresql_world: World) -> None:
        fuzz(operations[name], 1, postgresql_world)


def fuzz(operation: APIOperation[Any, Any, Any, Any], examples: int, world: World) -> None:
    @calls(examples)
    @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)))
    def each(case: Case[Any]) -> None:
        send(case, world)

    each()


def send(case: Case[Any], world: World) -> None:
    world.seed()
    name = case.operation.definition.raw["operationId"].removeprefix("procedure.")
    if not any(name.startswith(stream) for stream in _STREAMS):  # whose answers would never end
        for part in (case.path_parameters, case.query, case.body):
            if isinstance(part, dict):
                _name_real_things(part, world.ids)
    given = case.as_transport_kwargs(base_url="http://coordinator.test/api")
    headers = {key: value.encode("latin-1") for key, value in given["headers"].items()}
    headers["Authorization"] = f"Bearer {world.api.token}".encode()
    given.pop("cookies", None)
    body: dict[str, Any] = {key: value for key, value in given.items() if key in ("json", "data", "files")}
    if "data" in body:
        body["content"] = body.pop("data")
    response = world.request(given["method"], given["url"], params=given["params"], headers=headers, **body)
    world.touched = world.touched or (given["method"] != "GET" and response.is_success)
    case.validate_response(response, checks=CHECKS)


def _name_real_things(fields: dict[str, Any], ids: dict[str, str]) -> None:
    for key, value in fields.items():
        if (
            key in ids
            and isinstance(value, str)
            and _ID.fullmatch(value)
            and crc32(value.encode()) % 10 < REPLACED_OF_TEN
        ):
            fields[key] = ids[key]
    if "waitFor" in fields:
        fields["timeout"] = 1
