"""Signing a request to AWS: Signature Version 4, the part of it that a POST with a body in memory needs."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class AccessKey:
    id: str
    secret: str = field(repr=False)
    region: str = ""


@dataclass(frozen=True)
class Unsigned:
    """`path` and `query` are in their encoded form. `headers` has `host`."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    query: str = ""


def sign(request: Unsigned, key: AccessKey, service: str, moment: str) -> dict[str, str]:
    """The headers with `x-amz-date` and `authorization` added. `moment`: UTC as 20150830T123600Z."""
    headers = {name.lower(): " ".join(value.split()) for name, value in request.headers.items()} | {
        "x-amz-date": moment
    }
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        (
            request.method,
            request.path,
            request.query,
            *(f"{name}:{headers[name]}" for name in sorted(headers)),
            "",
            names,
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    scope = f"{moment[:8]}/{key.region}/{service}/aws4_request"
    text = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signature = hmac.new(_signing_key(key, service, moment[:8]), text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"{_ALGORITHM} {credential}"}


def _signing_key(key: AccessKey, service: str, day: str) -> bytes:
    derived = f"AWS4{key.secret}".encode()
    for part in (day, key.region, service, "aws4_request"):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    return derived
