"""Every bad setting is one line that names the option; good ones mean the same from a flag and from the environment."""

from pathlib import Path

import pytest

from agent.errors import SettingsError
from agent.settings import parse
from shared.wire.join import new_token

TOKEN = str(new_token("jt_1", bytes(32)))
URL = "https://argosy.example.com"


def refusal(*arguments: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(arguments, environment or {})
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_status == 2
    return message


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://127.0.0.1:8420", "ws://127.0.0.1:8420/agent/v1"),
        ("https://argosy.example.com/", "wss://argosy.example.com/agent/v1"),
        ("ws://[::1]:8420", "ws://[::1]:8420/agent/v1"),
        ("wss://example.com/argosy/", "wss://example.com/argosy/agent/v1"),
        ("wss://example.com/agent/v1", "wss://example.com/agent/v1"),
        ("HTTPS://Example.com:443", "wss://example.com:443/agent/v1"),
    ],
)
def test_the_websocket_is_found_from_the_coordinators_url(given: str, endpoint: str) -> None:
    assert parse(["--coordinator", given], {}).endpoint == endpoint


def test_flags_and_environment_say_the_same(tmp_path: Path) -> None:
    policy = tmp_path / "allow.toml"
    policy.touch()
    node = ["--coordinator", URL, "--join", TOKEN, "--state-dir", str(tmp_path), "--docker-host", "unix:///run/d.sock"]
    labels = ["--label", "zone=nord", "disk=ssd", "--label", "rack="]
    others = ["--address", "192.0.2.7", "--log-level", "debug", "--policy", str(policy)]
    from_flags = parse([*node, *labels, *others], {})
    from_environment = parse(
        [],
        {
            "ARGOSY_COORDINATOR": URL,
            "ARGOSY_JOIN": TOKEN,
            "ARGOSY_STATE_DIR": str(tmp_path),
            "ARGOSY_DOCKER_HOST": "unix:///run/d.sock",
            "ARGOSY_ADDRESS": "192.0.2.7",
            "ARGOSY_LABELS": "zone=nord, disk=ssd,rack=",
            "ARGOSY_LOG_LEVEL": "DEBUG",
            "ARGOSY_POLICY": str(policy),
        },
    )
    assert from_flags == from_environment
    assert from_flags.labels == {"zone": "nord", "disk": "ssd", "rack": ""}


def test_a_flag_wins_over_its_variable() -> None:
    settings = parse(
        ["--coordinator", URL, "--label", "zone=nord"],
        {"ARGOSY_COORDINATOR": "http://x", "ARGOSY_LABELS": "zone=sued,a=b"},
    )
    assert settings.endpoint.startswith("wss://argosy")
    assert settings.labels == {"zone": "nord", "a": "b"}


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse([], {"ARGOSY_COORDINATOR": URL, "ARGOSY_JOIN": ""})
    assert settings.state_dir == Path("/var/lib/argosy/agent")
    assert settings.docker_host == "unix:///var/run/docker.sock"
    assert (settings.token, settings.address, settings.labels, settings.log_level) == (None, "", {}, "info")


def test_a_policy_in_the_state_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").touch()
    settings = parse(["--coordinator", URL, "--state-dir", str(tmp_path)], {})
    assert settings.policy == tmp_path / "policy.toml"


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("coordinator", "", "is required"),
        ("coordinator", "argosy.example.com", "must read"),
        ("coordinator", "ftp://example.com", "must read"),
        ("coordinator", "http://", "must read"),
        ("coordinator", "http://example.com:99999", "not a URL"),
        ("coordinator", "http://me:secret@example.com", "does not belong"),
        ("coordinator", "http://example.com?x=1", "does not belong"),
        ("join", "nonsense", "has the form"),
        ("join", TOKEN[:-3], "damaged"),
        ("docker-host", "/var/run/docker.sock", "must read"),
        ("docker-host", "unix://", "must read"),
        ("docker-host", "ssh://host", "must read"),
        ("address", "example.com", "not an IP address"),
        ("log-level", "loud", "must be one of"),
        ("policy", "/does/not/exist.toml", "does not exist"),
    ],
)
def test_a_bad_value_is_refused_by_name(option: str, value: str, why: str) -> None:
    others = [] if option == "coordinator" else ["--coordinator", URL]
    variable = f"ARGOSY_{option.upper().replace('-', '_')}"
    for message in (
        refusal(*others, f"--{option}", value),
        refusal(*others, environment={variable: value}),
    ):
        assert f"--{option} ({variable})" in message
        assert why in message


@pytest.mark.parametrize(
    "label", ["zone", "=x", "argosy.node=1", " argosy.node=1", "a b=c", "a=" + "x" * 300, "zo\nne=x"]
)
def test_a_bad_label_is_refused(label: str) -> None:
    assert "--label (ARGOSY_LABELS)" in refusal("--coordinator", URL, "--label", label)


def test_secrets_are_not_repeated() -> None:
    assert "hunter2" not in refusal("--coordinator", "http://me:hunter2@example.com")
    assert TOKEN[5:30] not in refusal("--coordinator", URL, "--join", TOKEN[:-3])
    assert TOKEN not in repr(parse(["--coordinator", URL, "--join", TOKEN], {}))


def test_an_unknown_option_is_refused() -> None:
    assert "--frobnicate" in refusal("--coordinator", URL, "--frobnicate")
    assert "--coord" in refusal("--coord", URL), "no abbreviations: tomorrow's option could make them mean another"
