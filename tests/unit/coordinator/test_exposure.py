"""The settings about callers: flag, environment and default, and sentences that name what is wrong."""

import pytest

from coordinator.doors.limits import Limits
from coordinator.errors import StartError
from coordinator.exposure import Exposure
from coordinator.settings import read_settings


def exposed(*arguments: str, **environ: str) -> Exposure:
    return read_settings(["--data-dir", "/d", *arguments], environ).exposure


def test_limits_are_on_and_other_pages_out_by_default() -> None:
    assert exposed() == Exposure(Limits(reads=100, writes=30, streams=10), frozenset(), 0, 0)


def test_the_environment_sets_each_and_a_flag_wins() -> None:
    environ = {
        "ARGOSY_RATE_READS": "1",
        "ARGOSY_RATE_WRITES": "2",
        "ARGOSY_RATE_STREAMS": "0",
        "ARGOSY_AUDIT_RETENTION_DAYS": "365",
        "ARGOSY_DEPLOYS_PER_DAY": "200",
        "ARGOSY_CORS_ORIGINS": "https://app.example, http://[::1]:3000,HTTPS://B.example:8443",
    }
    origins = frozenset({"https://app.example", "http://[::1]:3000", "https://b.example:8443"})
    assert exposed("--rate-reads", "7", **environ) == Exposure(Limits(reads=7, writes=2, streams=0), origins, 365, 200)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARGOSY_RATE_READS", "many"),
        ("ARGOSY_RATE_READS", ""),
        ("ARGOSY_RATE_WRITES", "-1"),
        ("ARGOSY_RATE_STREAMS", "1.5"),
        ("ARGOSY_RATE_STREAMS", "٣"),
        ("ARGOSY_RATE_READS", "99999999999"),
        ("ARGOSY_AUDIT_RETENTION_DAYS", "1y"),
        ("ARGOSY_DEPLOYS_PER_DAY", "few"),
        ("ARGOSY_CORS_ORIGINS", "*"),
        ("ARGOSY_CORS_ORIGINS", "app.example"),
        ("ARGOSY_CORS_ORIGINS", "https://app.example/"),
        ("ARGOSY_CORS_ORIGINS", "https://app.example https://b.example"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(StartError, match=name):
        exposed(**{name: value})
