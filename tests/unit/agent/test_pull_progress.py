"""Progress from lines as an engine prints them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.pull_progress import PullLine, PullProgress

STREAM = b"""\
{"status":"Pulling from library/busybox","id":"1"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bb"}
{"status":"Already exists","progressDetail":{},"id":"cc"}
{"status":"Waiting","progressDetail":{},"id":"bb"}
{"status":"Downloading","progressDetail":{"current":100,"total":1000},"progress":"[=>]","id":"aa"}
{"status":"Downloading","progressDetail":{"current":400,"total":1000},"progress":"[==>]","id":"aa"}
{"status":"Downloading","progressDetail":{"current":50,"total":500},"id":"bb"}
{"status":"Verifying Checksum","progressDetail":{},"id":"aa"}
{"status":"Download complete","progressDetail":{},"id":"aa"}
{"status":"Extracting","progressDetail":{"current":32768,"total":999999},"id":"aa"}
{"status":"Download complete","progressDetail":{},"id":"bb"}
{"status":"Pull complete","progressDetail":{},"id":"aa"}
{"status":"Pull complete","progressDetail":{},"id":"bb"}
{"status":"Digest: sha256:abc"}
{"status":"Status: Downloaded newer image for busybox:1"}
"""

decode = msgspec.json.Decoder(PullLine).decode


def test_a_whole_pull() -> None:
    progress = PullProgress()
    told = [(progress.done, progress.known) for line in STREAM.splitlines() if progress.saw(decode(line))]
    assert told == [(100, 1000), (400, 1000), (450, 1500), (1050, 1500), (1500, 1500)]


def test_a_retried_layer_does_not_go_back() -> None:
    progress = PullProgress()
    for current in (900, 10):
        progress.saw(
            decode(b'{"status":"Downloading","progressDetail":{"current":%d,"total":1000},"id":"a"}' % current)
        )
    assert (progress.done, progress.known) == (900, 1000)


def test_failures_are_read_from_either_place() -> None:
    assert decode(b'{"errorDetail":{"code":1,"message":"manifest unknown"},"error":"x"}').failure == "manifest unknown"
    assert decode(b'{"error":"denied"}').failure == "denied"
    assert decode(b'{"status":"Waiting"}').failure == ""


STATUSES = ["Downloading", "Download complete", "Extracting", "Pull complete", "Waiting", "Retrying in 5 seconds", ""]
line = st.builds(
    lambda status, layer, current, total: decode(
        msgspec.json.encode({"status": status, "id": layer, "progressDetail": {"current": current, "total": total}})
    ),
    st.sampled_from(STATUSES),
    st.sampled_from(["a", "b", "c"]),
    st.none() | st.integers(0, 1000),
    st.none() | st.integers(0, 1000),
)


@given(st.lists(line, max_size=50))
def test_numbers_only_grow_and_done_never_passes_known(lines: list[PullLine]) -> None:
    progress = PullProgress()
    before = (0, 0)
    for one in lines:
        progress.saw(one)
        assert progress.done >= before[0]
        assert progress.known >= before[1]
        assert progress.done <= progress.known
        before = (progress.done, progress.known)
