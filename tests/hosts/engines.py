"""Several real Docker Engines on one machine, each on a host of its own: `Lab` makes the hosts and the network between them.

A host has its own network, process, mount, uts and ipc namespaces, its own 127.0.0.1, /run, /etc, /var/lib, engine and
images. All hosts hang on one switch together with "ci", the place of a coordinator or a registry. There is no route to
anywhere else: a test that would reach the internet fails here too. Everything is synchronous, for use from fixtures;
inside an event loop call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, STDOUT, CompletedProcess
from types import TracebackType
from typing import Any, Self

import docker  # type: ignore[import-untyped, unused-ignore]

from tests.hosts import dns, packages, sweeping
from tests.hosts.box import Box
from tests.hosts.claims import Claim, remove_cgroups
from tests.hosts.errors import NotReadyError
from tests.hosts.process import SYSTEM_PATH, Spawned, Stream, sh, wait_until
from tests.hosts.switch import Switch

NEEDED = ("docker.io", "e2fsprogs", "iproute2", "iptables", "nftables", "util-linux")
# The venv of the tests first: `argosy-agent` is the one under test. Nothing else of this shell's environment gets in, so
# that a developer's DOCKER_HOST or ARGOSY_* settings cannot change what a test sees.
BASE_ENV = {"PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}", "LANG": "C.UTF-8"}
MOUNT_DISK = '\nmount -o loop "$DIR/disk.img" "$DIR/data"\n'


class Place:
    """Where commands run: the shared half of a host and of "ci"."""

    def __init__(self, lab: Lab, name: str, address: str) -> None:
        self.lab = lab
        self.name = name
        self.address = address
        self.directory = lab.claim.directory / name
        self.box = Box(name, self.directory, lab.claim.marker)
        self.box.write_etc("hostname", f"{name}\n")
        self.box.write_etc("hosts", f"127.0.0.1 localhost\n{address} {name}\n")
        self.box.write_etc("resolv.conf", f"nameserver {lab.ci_address}\n")
        self.box.write_etc("machine-id", f"{uuid.uuid4().hex}\n")
        (self.directory / "home").mkdir()
        self.spawned: list[Spawned] = []

    def boot(self, setup: str = "") -> None:
        self.box.boot(setup)
        self.lab.switch.plug(self.name, self.box, self.address)

    def _env(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {**BASE_ENV, "HOME": str(self.directory / "home"), **(env or {})}

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: str | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> CompletedProcess[str]:
        """Run to completion inside; raises CommandFailedError on a status other than 0, unless told otherwise."""
        return self.box.run(command, self._env(env), cwd=cwd, stdin=stdin, timeout=timeout, check=check)

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: Stream = DEVNULL,
        stdout: Stream = None,
        stderr: Stream = STDOUT,
    ) -> Spawned:
        """A long-running process inside; it ends with the host. Without `stdout`, its output goes to `.directory/log`."""
        process = self.box.spawn(command, self._env(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)
        self.spawned.append(process)
        return process

    def end_spawned(self) -> None:
        for process in self.spawned:
            process.end()
        self.spawned.clear()

    def power_off(self) -> None:
        """Everything inside is gone at once, as in a power cut; returns when it is."""
        self.box.kill()
        self.lab.switch.unplug(self.name)
        self.end_spawned()  # dead already: this reaps


class Host(Place):
    def __init__(self, lab: Lab, name: str, address: str, disk_mib: int | None) -> None:
        super().__init__(lab, name, address)
        self.socket = self.directory / "docker.sock"
        self.docker_url = f"unix://{self.socket}"
        self.engine_args: tuple[str, ...] = lab.engine_args
        self._engine: Spawned | None = None
        self._client: Any = None
        self._loaded: dict[Path, set[str]] = {}  # by archive, the ids of its images
        (self.directory / "data").mkdir()
        self._disk = self._make_disk(disk_mib) if disk_mib else None

    def _make_disk(self, mib: int) -> Path:
        image = self.directory / "disk.img"
        with image.open("wb") as file:
            file.truncate(mib << 20)
        sh("mkfs.ext4", "-q", "-F", "-m", "0", image)
        return image

    # --- power and cable

    def power_on(self) -> None:
        """Boot, and start the engine with the arguments it had last; disks are as the power cut left them."""
        self.boot(MOUNT_DISK if self._disk else "")
        self.start_engine(self.engine_args)

    def power_off(self) -> None:
        self._forget_client()
        super().power_off()
        if self._engine is not None:
            self._engine.end()
            self._engine = None
        self.socket.unlink(missing_ok=True)
        remove_cgroups(f"{self.lab.claim.tag}-{self.name}")
        if self._disk:  # the kernel lets go of the loop device a moment later; two on one file would destroy it
            wait_until(lambda: not sh("losetup", "--associated", str(self._disk)).strip(), 10, "release of the disk")

    @property
    def is_on(self) -> bool:
        return self.box.is_on

    def cut(self) -> None:
        """Pull the network cable. Addresses stay; nothing goes in or out."""
        self.lab.switch.set_port(self.name, up=False)

    def heal(self) -> None:
        self.lab.switch.set_port(self.name, up=True)

    # --- engine

    def start_engine(self, extra_args: Iterable[str] = ()) -> None:
        self.engine_args = tuple(extra_args)
        self.socket.unlink(missing_ok=True)
        self.run(["rm", "-f", "/run/docker.pid"])  # a killed engine leaves it, and its number may be somebody's by now
        with self.box.log.open("a") as log:
            self._engine = self.box.spawn(
                ["dockerd", *self._settings(), *self.engine_args],
                {**BASE_ENV, "PATH": SYSTEM_PATH},
                cwd="/",
                stdout=log,
            )
        try:
            wait_until(self._engine_answers, 60, f"the engine of {self.name}")
        except NotReadyError as late:
            raise NotReadyError(f"{late}\n{self.box.log_tail()}") from None

    def _settings(self) -> list[str]:
        lab = self.lab
        (self.directory / "daemon.json").write_text("{}")  # not the machine's own
        settings = {
            "config-file": self.directory / "daemon.json",
            "data-root": self.directory / "data",
            # On the private /run: on a disk, containerd hangs on stale bundles after a power cut.
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "exec-opt": "native.cgroupdriver=cgroupfs",
            "cgroup-parent": f"/{lab.claim.tag}-{self.name}",
            "storage-driver": "overlay2",
            "log-level": "warn",
            "default-address-pool": "base=172.30.0.0/16,size=24",
            "dns": lab.ci_address,
            "insecure-registry": f"{lab.claim.net}.0/24",
        }
        sockets = ["--host", self.docker_url, "--host", "unix:///run/docker.sock"]
        return [*sockets, *(f"--{name}={value}" for name, value in settings.items())]

    def _engine_answers(self) -> bool:
        assert self._engine is not None
        if self._engine.poll() is not None:
            raise NotReadyError(f"the engine of {self.name} ended with {self._engine.returncode}")
        return self.engine_answers()

    def engine_answers(self) -> bool:
        return sweeping.ping(self.socket)

    @property
    def engine_pid(self) -> int:
        """Of dockerd, as seen from the root namespace; ProcessLookupError when it is not running."""
        if self._engine is None:
            raise ProcessLookupError(f"{self.name} has no engine")
        return self._engine.real_pid

    @property
    def engine_is_on(self) -> bool:
        return self._engine is not None and self._engine.poll() is None

    def stop_engine(self) -> None:
        """As `systemctl stop docker` does: containers are stopped (unless the engine has --live-restore)."""
        self._end_engine(signal.SIGTERM, 60)

    def kill_engine(self) -> None:
        """SIGKILL to dockerd only. Shims and containers live on; the next start adopts or ends them."""
        self._end_engine(signal.SIGKILL, 10)

    def _end_engine(self, how: signal.Signals, timeout: float) -> None:
        self._forget_client()
        if self._engine is not None:
            self._engine.send_signal(how)
            self._engine.wait(timeout)
            self._engine = None

    def docker(self) -> Any:
        """The docker SDK's client, which shares no code with the product: the independent witness."""
        if self._client is None:
            self._client = docker.DockerClient(base_url=self.docker_url, timeout=60)
        return self._client

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def load_image(self, tar_path: Path) -> list[str]:
        """The tags that the archive brought."""
        with tar_path.open("rb") as archive:
            loaded = self.docker().images.load(archive)
        self._loaded[tar_path] = {image.id for image in loaded}
        return [tag for image in loaded for tag in image.tags]

    def reset(self) -> None:
        """Back to an empty engine that answers, with the lab's arguments, and with the images that were loaded here."""
        self.heal()
        self.end_spawned()
        if not self.is_on:
            self.engine_args = self.lab.engine_args
            self.power_on()
        elif not self.engine_is_on or self.engine_args != self.lab.engine_args:
            self.stop_engine()
            self.start_engine(self.lab.engine_args)
        sweeping.empty(self.docker())
        kept = sweeping.keep_images(self.docker(), set().union(*self._loaded.values()))
        for tar, images in list(self._loaded.items()):
            if not images <= kept:
                self.load_image(tar)


class Lab:
    """`disk_mib` gives hosts (by name) a small disk of their own for everything the engine stores."""

    def __init__(
        self,
        hosts: int = 3,
        name: str = "lab",
        *,
        root_leg: bool = True,
        disk_mib: Mapping[str, int] | None = None,
        engine_args: Iterable[str] = (),
        images: Iterable[Path] = (),
    ) -> None:
        self.name = name
        self.engine_args = tuple(engine_args)
        self.images = tuple(images)
        self.hosts: list[Host] = []
        self._count = hosts
        self._root_leg = root_leg
        self._disks = dict(disk_mib or {})

    def __enter__(self) -> Self:
        packages.require(*NEEDED)
        self.claim = Claim(self.name[:4])
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def _build(self) -> None:
        self.switch = Switch(self.claim)
        self.ci = Place(self, "ci", self.ci_address)
        self.ci.boot()
        if self._root_leg:
            self.switch.add_root_leg(self.root_address)
        names = {f"h{i}": f"{self.claim.net}.{10 + i}" for i in range(1, self._count + 1)}
        self.ci_spawn([sys.executable, "-I", dns.__file__, self.ci_address, *(f"{n}={a}" for n, a in names.items())])
        self.hosts = [Host(self, name, address, self._disks.get(name)) for name, address in names.items()]
        self._everywhere(Host.power_on)
        for tar in self.images:
            self._everywhere(partial(Host.load_image, tar_path=tar))

    def _everywhere(self, act: Callable[[Host], object]) -> None:
        with ThreadPoolExecutor(max(1, len(self.hosts))) as pool:
            list(pool.map(act, self.hosts))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._everywhere(Host.power_off)
            if hasattr(self, "ci"):
                self.ci.power_off()
            if hasattr(self, "switch"):
                self.switch.close()
        finally:
            self.claim.release()

    @property
    def ci_address(self) -> str:
        return f"{self.claim.net}.1"

    @property
    def root_address(self) -> str:
        """The address of the root namespace on the lab's network, when it has a leg there."""
        return f"{self.claim.net}.254"

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def ci_run(self, command: Sequence[str], **options: Any) -> CompletedProcess[str]:
        return self.ci.run(command, **options)

    def ci_spawn(self, command: Sequence[str], **options: Any) -> Spawned:
        return self.ci.spawn(command, **options)

    def reset(self) -> None:
        """Between tests: every host on, connected, its engine answering and empty. What runs in "ci" is left alone."""
        self.switch.clear_faults()
        self._everywhere(Host.reset)
