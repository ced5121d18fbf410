"""`WWW-Authenticate` as registries write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.challenge import Challenge, parse


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [Challenge("basic")]),
        ('Basic realm="a, b"', [Challenge("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"',
            [Challenge("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"})],
        ),
        (
            'Bearer realm="https://ghcr.io/token", service="ghcr.io", scope="repository:user/image:pull"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://ghcr.io/token", "service": "ghcr.io", "scope": "repository:user/image:pull"},
                )
            ],
        ),
        (
            'Basic realm="x", Bearer realm="y",service=z',
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y", "service": "z"})],
        ),
        (r'Basic realm="a \"quoted\" one"', [Challenge("basic", {"realm": 'a "quoted" one'})]),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
    ],
)
def test_parse(header: str, challenges: list[Challenge]) -> None:
    assert parse(header) == challenges


@given(st.text(max_size=300))
def test_anything_is_read_without_a_fault(header: str) -> None:
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in parse(header))
