# ruff: noqa: E501  (what engines said, unbroken)
"""What real engines said when they failed, and what it means."""

import pytest

from agent.runtime.docker_faults import Doing, fault
from shared.spec import reason

ENDPOINT = f"endpoint web-0-abc123 ({'0a' * 32})"
OCI_20 = (
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
)
OCI_26 = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "

SAID: list[tuple[Doing, int, str, str, bool]] = [
    # Pulling: Docker Hub, distribution registries, GHCR; 20.10 and 26
    ("pull", 404, "manifest for nginx:nope not found: manifest unknown: manifest unknown", reason.IMAGE_NOT_FOUND, False),
    ("pull", 404, "manifest unknown", reason.IMAGE_NOT_FOUND, False),
    ("pull", 404, "no matching manifest for linux/arm64/v8 in the manifest list entries", reason.IMAGE_NOT_FOUND, False),
    ("pull", 404, "failed to resolve reference \"reg.example/x:1\": reg.example/x:1: not found", reason.IMAGE_NOT_FOUND, False),
    ("pull", 404, "name unknown: repository name not known to registry", reason.IMAGE_NOT_FOUND, False),
    ("pull", 404, "pull access denied for secret/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", reason.IMAGE_DENIED, False),
    ("pull", 500, 'Head "https://reg.example/v2/x/manifests/1": no basic auth credentials', reason.IMAGE_DENIED, False),
    ("pull", 500, 'Get "https://reg.example/v2/": unauthorized: authentication required', reason.IMAGE_DENIED, False),
    ("pull", 500, 'Head "https://ghcr.io/v2/x/y/manifests/1": denied', reason.IMAGE_DENIED, False),
    ("pull", 0, "unauthorized: incorrect username or password", reason.IMAGE_DENIED, False),
    ("pull", 500, "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading", reason.IMAGE_PULL_FAILED, True),
    ("pull", 500, 'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.0.0.2:53: no such host', reason.IMAGE_PULL_FAILED, True),
    ("pull", 500, 'Get "http://10.0.0.3:5000/v2/": dial tcp 10.0.0.3:5000: connect: connection refused', reason.IMAGE_PULL_FAILED, True),
    ("pull", 500, 'Get "https://registry-1.docker.io/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)', reason.IMAGE_PULL_FAILED, True),
    ("pull", 500, 'Get "https://10.0.0.3:5000/v2/": http: server gave HTTP response to HTTPS client', reason.IMAGE_PULL_FAILED, True),
    ("pull", 0, "received unexpected HTTP status: 503 Service Unavailable", reason.IMAGE_PULL_FAILED, True),
    ("pull", 0, "unexpected EOF", reason.IMAGE_PULL_FAILED, True),
    ("pull", 400, "invalid reference format", reason.INVALID, False),
    ("pull", 0, "write /var/lib/docker/tmp/GetImageBlob123: no space left on device", reason.DISK_FULL, True),
    ("pull", 0, "failed to register layer: Error processing tar file(exit status 1): write /bin/x: no space left on device", reason.DISK_FULL, True),
    # Creating
    ("create", 404, "No such image: nope:1", reason.IMAGE_NOT_FOUND, True),
    ("create", 400, "No command specified", reason.INVALID, False),
    ("create", 400, 'invalid mount config for type "bind": bind source path does not exist: /nope', reason.INVALID, False),
    ("create", 400, "invalid mount config for type \"volume\": invalid mount path: 'rel' mount path must be absolute", reason.INVALID, False),
    ("create", 400, "Duplicate mount point: /data", reason.INVALID, False),
    ("create", 400, "Minimum memory limit allowed is 6MB", reason.INVALID, False),
    ("create", 400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", reason.INVALID, False),
    ("create", 409, 'Conflict. The container name "/web" is already in use by container "abc". You have to remove (or rename) that container to be able to reuse that name.', reason.ENGINE_ERROR, True),
    ("create", 500, "mkdir /var/lib/docker/overlay2/abc: no space left on device", reason.DISK_FULL, True),
    # Starting
    ("start", 400, f'{OCI_20}exec: "x": executable file not found in $PATH: unknown', reason.INVALID, False),
    ("start", 400, f'{OCI_26}exec: "x": executable file not found in $PATH: unknown', reason.INVALID, False),
    ("start", 400, f'{OCI_20}exec: "/nope": stat /nope: no such file or directory: unknown', reason.INVALID, False),
    ("start", 400, f'{OCI_20}exec: "/etc": permission denied: unknown', reason.INVALID, False),
    ("start", 400, f"{OCI_26}exec /x: exec format error: unknown", reason.INVALID, False),
    ("start", 500, f"driver failed programming external connectivity on {ENDPOINT}: Bind for 0.0.0.0:80 failed: port is already allocated", reason.PORT_TAKEN, False),
    ("start", 500, f"driver failed programming external connectivity on {ENDPOINT}: Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use", reason.PORT_TAKEN, False),
    ("start", 500, f"failed to set up container networking: driver failed programming external connectivity on {ENDPOINT}: failed to bind host port for 0.0.0.0:80:172.17.0.2:80/tcp: address already in use", reason.PORT_TAKEN, False),
    ("start", 500, f"{OCI_20}container init was OOM-killed (memory limit too low?): unknown", reason.OUT_OF_MEMORY, False),
    ("start", 500, f"{OCI_20}cannot allocate memory: unknown", reason.ENGINE_ERROR, True),
    ("start", 409, "container is marked for removal and cannot be started", reason.ENGINE_ERROR, True),
    ("start", 404, "No such container: abc", reason.REMOVED_OUTSIDE, True),
    ("start", 500, "something nobody ever saw", reason.ENGINE_ERROR, True),
    ("other", 501, "configured logging driver does not support reading", reason.ENGINE_ERROR, False),
    ("other", 409, "remove vol: volume is in use - [abc]", reason.ENGINE_ERROR, True),
]  # fmt: skip


@pytest.mark.parametrize(("doing", "status", "message", "code", "temporary"), SAID, ids=[said[2][:60] for said in SAID])
def test_meaning(doing: Doing, status: int, message: str, code: str, temporary: bool) -> None:
    meant = fault(status, message, doing)
    assert (meant.code, meant.temporary) == (code, temporary)
    assert meant.message


@pytest.mark.parametrize(
    ("message", "readable"),
    [
        (
            f'{OCI_26}exec: "x": executable file not found in $PATH: unknown',
            'exec: "x": executable file not found in $PATH',
        ),
        (
            f"driver failed programming external connectivity on {ENDPOINT}: Bind for 0.0.0.0:80 failed: port is already allocated",
            "Bind for 0.0.0.0:80 failed: port is already allocated",
        ),
        ("", "the engine gave no reason"),
    ],
)
def test_people_read_the_reason_and_not_its_wrapping(message: str, readable: str) -> None:
    assert fault(500, message, "start").message == readable


def test_a_novel_is_cut() -> None:
    assert len(fault(500, "x" * 10_000, "start").message) == 500
