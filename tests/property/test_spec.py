"""The nouns both halves share: orders that merge, quantities that mean what they say, rules that name the field."""

import string
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kit.clock import from_iso, iso
from shared.kit.ids import new_id
from shared.spec import container, quantity
from shared.spec.container import EnvVar, HealthCheck, Port, Resources, Strategy, Template, Volume
from shared.spec.instance import TERMINAL, WRITERS, Phase, may_write, supersedes
from shared.spec.release import spec_hash

STATEMENTS = st.tuples(st.integers(1, 5), st.sampled_from(Phase))


# Phases ----------------------------------------------------------------------------------------------------------------------


@given(statements=st.lists(STATEMENTS, min_size=1, max_size=12), data=st.data())
def test_the_order_reports_arrive_in_does_not_matter(statements: list[tuple[int, Phase]], data: st.DataObject) -> None:
    def merged(order: list[tuple[int, Phase]]) -> tuple[int, Phase]:
        known = order[0]
        for new in order[1:]:
            known = new if supersedes(known, new) else known
        return known

    alive = [statement for statement in statements if statement[1] is not Phase.REMOVED] or [(1, Phase.RUNNING)]
    shuffled = data.draw(st.permutations(alive))
    assert merged(list(shuffled)) == max(alive)
    assert merged([*shuffled, (9, Phase.REMOVED)])[1] is Phase.REMOVED


@given(old=STATEMENTS, new=STATEMENTS)
def test_nothing_goes_backwards_and_nothing_follows_removal(old: tuple[int, Phase], new: tuple[int, Phase]) -> None:
    if supersedes(old, new):
        assert new >= old
        assert old[1] is not Phase.REMOVED
    else:
        assert new < old or old[1] is Phase.REMOVED


def test_each_transition_has_one_writer_and_leads_forward() -> None:
    for old, new in product([None, *Phase], Phase):
        writers = [
            writer for writer in ("orchestrator", "scheduler", "agent", "collector") if may_write(writer, old, new)
        ]
        assert len(writers) == ((old, new) in WRITERS)
        if writers:
            assert old is None or new > old
    for end in TERMINAL - {Phase.REMOVED}:
        assert may_write("agent", end, Phase.REMOVED)
    assert not any(old is Phase.REMOVED for old, _ in WRITERS)


# Quantities ------------------------------------------------------------------------------------------------------------------


@given(millis=st.integers(1, 999_999))
def test_processor_shares(millis: int) -> None:
    assert quantity.cpu_millis(f"{millis}m") == millis
    assert quantity.cpu_millis(f"{millis // 1000}.{millis % 1000:03}") == millis or millis // 1000 > 9999


@given(count=st.integers(0, 10**12), unit=st.sampled_from(["", "Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"]))
def test_amounts_of_memory(count: int, unit: str) -> None:
    factors = {
        "": 1,
        "Ki": 2**10,
        "Mi": 2**20,
        "Gi": 2**30,
        "Ti": 2**40,
        "k": 10**3,
        "M": 10**6,
        "G": 10**9,
        "T": 10**12,
    }
    assert quantity.byte_count(f"{count}{unit}") == count * factors[unit]


@given(text=st.text(alphabet=string.printable, max_size=12))
def test_what_is_no_quantity_is_a_value_error(text: str) -> None:
    for parse in (quantity.cpu_millis, quantity.byte_count):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        assert parsed >= 0
        assert text[0] in string.digits


@pytest.mark.parametrize("text", ["", "0", "0m", "-1", "1.2345", "1e3", "500 m", "1M", " 1", "1\n", "nan"])
def test_no_processor_share(text: str) -> None:
    with pytest.raises(ValueError, match="processor share"):
        quantity.cpu_millis(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (536870912, "512 MiB"), (1536, "1.5 KiB"), (5 * 2**40, "5 TiB")]
)
def test_bytes_as_people_read_them(count: int, text: str) -> None:
    assert quantity.readable_bytes(count) == text


# Templates -------------------------------------------------------------------------------------------------------------------


def decoded(**fields: object) -> Template:
    return msgspec.convert({"image": "web:1"} | fields, Template)


@given(name=st.text(min_size=1, max_size=20))
def test_names_are_labels_of_the_name_system_and_nothing_else(name: str) -> None:
    allowed = set(string.ascii_lowercase + string.digits + "-")
    valid = len(name) >= 2 and set(name) <= allowed and name[0] != "-" and name[-1] != "-"
    try:
        msgspec.convert(name, container.Name)
    except msgspec.ValidationError:
        assert not valid
    else:
        assert valid


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "web:1\n"),
        ("labels", {"team\n": "x"}),
        ("env", [{"key": "A\n"}]),
        ("placement", {"platform": "linux/amd64\n"}),
    ],
)
def test_a_trailing_newline_is_not_overlooked(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        decoded(**{field: value})


@pytest.mark.parametrize(
    ("field", "template"),
    [
        ("resources.cpuLimit", Template(image="a", resources=Resources(cpu_limit="much"))),
        ("resources.memoryLimit", Template(image="a", resources=Resources(memory_limit="1Mi"))),
        ("resources.memoryRequest", Template(image="a", resources=Resources(memory_limit="8Mi", memory_request="9Mi"))),
        ("healthCheck.port", Template(image="a", health_check=HealthCheck())),
        ("healthCheck.command", Template(image="a", health_check=HealthCheck(type="exec"))),
        ("healthCheck.command", Template(image="a", health_check=HealthCheck(port=1, command=["x"]))),
        ("env", Template(image="a", env=[EnvVar("A", "1"), EnvVar("A", "2")])),
        ("env", Template(image="a", env=[EnvVar("A", "x" * 20_000), EnvVar("B", "x" * 20_000)])),
        ("ports", Template(image="a", ports=[Port(80, 8080), Port(81, 8080)])),
        ("volumes", Template(image="a", volumes=[Volume("data", "/a"), Volume("data", "/b")])),
        ("labels.argosy.x", Template(image="a", labels={"argosy.x": "1"})),
        ("placement.constraints[0]", Template(image="a", placement=container.Placement(constraints=["zone=a"]))),
        ("strategy.maxSurge", Template(image="a", strategy=Strategy(max_surge=0, max_unavailable=0))),
        ("command", Template(image="a", command=["x" * 8000] * 3)),
    ],
)
def test_rules_over_several_fields_name_the_field(field: str, template: Template) -> None:
    assert field in [name for name, _ in container.problems(template)]


def test_a_plain_template_has_no_problems() -> None:
    template = Template(image="web:1", port=80, health_check=HealthCheck(), resources=Resources("500m", "64Mi"))
    assert list(container.problems(template)) == []


@given(
    key=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}", fullmatch=True),
    equal=st.booleans(),
    value=st.sampled_from(["a", "b/c", "1.2"]),
)
def test_constraints_come_apart_as_they_were_written(key: str, equal: bool, value: str) -> None:
    assert container.constraint_parts(f"{key}{'==' if equal else '!='}{value}") == (key, equal, value)


def test_the_short_form_of_a_port_is_one_of_the_ports() -> None:
    assert container.all_ports(Template(image="a", port=80)) == [Port(80)]
    assert container.all_ports(Template(image="a", port=80, ports=[Port(80, 8080)])) == [Port(80, 8080)]
    assert container.all_ports(Template(image="a", port=80, ports=[Port(80, protocol="udp")])) == [
        Port(80),
        Port(80, protocol="udp"),
    ]


def test_what_placement_reserves_defaults_to_the_limits() -> None:
    assert container.cpu_request(Resources(cpu_limit="0.5")) == 500
    assert container.cpu_request(Resources(cpu_limit="0.5", cpu_request="100m")) == 100
    assert container.memory_request(Resources(memory_limit="1Ki")) == 1024
    assert container.memory_request(Resources()) == container.cpu_request(Resources()) == 0


@given(labels=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=5), data=st.data())
def test_a_spec_hash_is_of_the_content_and_not_of_its_order(labels: dict[str, str], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(labels.items()))))
    assert spec_hash(Template(image="a", labels=labels)) == spec_hash(Template(image="a", labels=shuffled))
    assert spec_hash(Template(image="a", labels=labels)) != spec_hash(Template(image="b", labels=labels))


# Ids and times ---------------------------------------------------------------------------------------------------------------


@given(at=st.floats(0, 4_000_000_000))
def test_timestamps_survive_to_the_millisecond(at: float) -> None:
    text = iso(at)
    assert text.endswith("Z")
    assert abs(from_iso(text) - at) <= 0.001
    assert from_iso(text.removesuffix("Z")) == from_iso(text), "without an offset it is UTC"


def test_ids_are_unique_prefixed_and_sort_by_time() -> None:
    made = [new_id("node") for _ in range(500)]
    assert len(set(made)) == len(made)
    assert all(name.startswith("node_") and len(name) == 26 for name in made)
    stamps = [name[5:14] for name in made]
    assert stamps == sorted(stamps)
