"""Signature Version 4 against the vectors of AWS' own published test suite."""

import pytest

from coordinator.core.sigv4 import AccessKey, Unsigned, sign

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1")
MOMENT = "20150830T123600Z"


@pytest.mark.parametrize(
    ("method", "query", "signature"),
    [
        ("GET", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "Param1=value1&Param2=value2", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)
def test_vectors(method: str, query: str, signature: str) -> None:
    signed = sign(Unsigned(method, "/", {"Host": "example.amazonaws.com"}, query=query), KEY, "service", MOMENT)
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )


def test_the_key_is_shown_nowhere() -> None:
    assert KEY.secret not in repr(KEY)
