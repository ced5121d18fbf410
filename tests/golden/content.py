"""What the golden files say. Every field of every frame differs from its default, so that none can vanish unseen."""

from shared.spec.container import EnvVar, HealthCheck, Port, Security
from shared.spec.instance import Assignment, InstanceReport, InstanceSpec, InstanceVolume, Phase, PortBinding
from shared.spec.node import Engine, HostSample, InstanceSample, NodeFacts
from shared.spec.reason import DISK_FULL, ENGINE_UNREACHABLE, Reason
from shared.wire import frames
from shared.wire.frames import AgentFrame, HubFrame

_KEY = bytes(range(32))
_OTHER_KEY = bytes(range(32, 64))
_NONCE = bytes(range(64, 96))
_SIGNATURE = bytes(range(96, 160))
_NODE = "node_01hv3kq9t2c4d5e6f7g8h"
_INSTANCE = "inst_01hv3kq9t2c4d5e6f7g8h"
_STREAM = "log_01hv3kq9t2c4d5e6f7g8h"

_FACTS = NodeFacts(
    hostname="hafen-1",
    address="192.0.2.7",
    platform="linux/arm64",
    kernel="6.1.0-28-arm64",
    cpu_millis=4000,
    memory_bytes=8 * 2**30,
    disk_bytes=100 * 2**30,
    disk_free=61 * 2**30,
    agent_version="0.1.0",
    boot_id="0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
    labels={"zone": "nord", "disk": "ssd"},
    engine=Engine("docker", "26.1.5", "1.45", Reason(ENGINE_UNREACHABLE, "no answer for 5 s", 1700000009.5)),
)
_SPEC = InstanceSpec(
    image="registry.example.com/shop/web:1.4.2",
    command=["serve", "--port", "8080"],
    env=[EnvVar("MODE", "production"), EnvVar("TOKEN", "", secret=True)],
    sealed=b"sealed for one node",
    ports=[Port(port=8080, host_port=18080, protocol="udp")],
    cpu_millis=500,
    memory_bytes=256 * 2**20,
    health_check=HealthCheck(
        type="exec", path="/healthz", port=8080, command=["true"], interval=7, timeout=2, retries=4, start_period=9
    ),
    volumes=[InstanceVolume("argosy-data-0", "/data", host=True, read_only=True)],
    labels={"team": "shop"},
    restart_policy="on-failure",
    stop_grace_period=30,
    security=Security(privileged=True, host_network=True, host_pid=True, host_ipc=True),
)
_ASSIGNMENT = Assignment(
    instance_id=_INSTANCE,
    container_id="ctr_01hv3kq9t2c4d5e6f7g8h",
    container_name="shop-web",
    slot=2,
    revision=5,
    spec_hash="0123456789abcdef",
    goal="stop",
    spec=_SPEC,
    remove_volumes=["argosy-cache-0"],
)
_REPORT = InstanceReport(
    instance_id=_INSTANCE,
    attempt=3,
    phase=Phase.FAILED,
    health="unhealthy",
    reason=Reason(DISK_FULL, "512 MiB are left and 2 GiB are needed", 1700000060.25),
    ports=[PortBinding(8080, 49153, "192.0.2.7", "udp")],
    started_at=1700000000.5,
    finished_at=1700000030.75,
    exit_code=137,
    image_digest="sha256:" + "ab" * 32,
    progress=(1048576, 4194304),
)

AGENT: tuple[AgentFrame, ...] = (
    frames.AgentOpen(_NONCE, [1], "0.1.0"),
    frames.AgentEnroll(_KEY, _OTHER_KEY, "jt_01hv3kq9t2c4d5e6f7g8h", b"sealed secret", _SIGNATURE, _FACTS),
    frames.AgentHello(
        _NODE,
        _KEY,
        _SIGNATURE,
        41,
        _FACTS,
        17,
        ["logs"],
        [frames.Held(_INSTANCE, 3, Phase.RUNNING), frames.Held("x", 0, 0)],
    ),
    frames.LeaseRenew(123456789),
    frames.InstanceReports(9, [_REPORT]),
    frames.AssignmentNeed(17),
    frames.AssignmentAck(18),
    frames.NodeStatus(_FACTS),
    frames.MetricsSample(
        HostSample(1700000000.5, 1.25, 3 * 2**30, 8 * 2**30, 61 * 2**30, 0.75),
        [InstanceSample(_INSTANCE, 1700000000.5, 0.5, 2**20, 2**28, 1, 2, 3, 4)],
    ),
    frames.LogChunk(
        _STREAM,
        [frames.LogLine(1700000000123456789, 1, "bereit"), frames.LogLine(1700000000123456790, 2, "¡ay! 🛟")],
        12,
        3456,
    ),
    frames.LogEnd(_STREAM, "the engine container is gone"),
)
HUB: tuple[HubFrame, ...] = (
    frames.HubChallenge(_NONCE, 1, _KEY, _OTHER_KEY, _SIGNATURE),
    frames.HubEnrolled(_NODE),
    frames.HubReady(42, 2000, 6000, 18, 1700000000.5, ["logs"]),
    frames.LeaseAck(123456789, 10000),
    frames.ReportAck(9),
    frames.AssignmentSet(18, 1, True, [_ASSIGNMENT]),
    frames.AssignmentDelta(17, 18, [_ASSIGNMENT], ["inst_01hv3kq9t2c4d5e6f7g8j"]),
    frames.LogSubscribe(_STREAM, _INSTANCE, 65536, 100, 1699999000.5, 1700000000.25, True),
    frames.LogCredit(_STREAM, 32768),
    frames.LogCancel(_STREAM),
    frames.HubGoaway(4011, "the coordinator takes no more sessions for now", 30000),
)
COMPRESSED = frames.AssignmentSet(
    19,
    0,
    False,
    [
        Assignment(f"inst_{number:04}", "ctr_1", "shop-web", number, 5, "0123456789abcdef", spec=_SPEC)
        for number in range(40)
    ],
)
"""Large enough to travel compressed: the packing is part of the format too."""
