"""The network of a lab: one bridge in a namespace of its own, one port for each host, and faults between ports."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.hosts.box import Box
from tests.hosts.claims import Claim
from tests.hosts.errors import CommandFailedError

NO_FAULTS = """
table bridge fault
delete table bridge fault
table bridge fault { chain fdrop { type filter hook forward priority 0; policy accept; }; }
"""


class Switch:
    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.box = Box("switch", claim.directory / "switch", claim.marker)
        self.box.boot()
        self._ip("link add br0 type bridge", "link set br0 up")
        self.clear_faults()

    def close(self) -> None:
        self.box.kill()

    def _ip(self, *lines: str) -> None:
        self.box.in_network("ip", "-batch", "-", stdin="\n".join(lines))

    def plug(self, port: str, box: Box, address: str) -> None:
        """Give the box an eth0 with this address, at the other end of `port`.

        The MAC address follows from the IP address: a host that boots again has the same card as before, and its
        neighbours need not find out that their ARP entry is wrong, which takes them many seconds."""
        mac = "02:a9:" + ":".join(f"{int(octet):02x}" for octet in address.split("."))
        peer = f"peer name eth0 address {mac} netns {box.pid}"
        self._ip(f"link add {port} type veth {peer}", f"link set {port} master br0 up")
        box.in_network("ip", "-batch", "-", stdin=f"addr add {address}/24 dev eth0\nlink set eth0 up\n")

    def unplug(self, port: str) -> None:
        """The kernel would do it, but some time after the last process of the host: a quick reboot needs the name."""
        if self.box.is_on:
            with contextlib.suppress(CommandFailedError):
                self._ip(f"link del {port}")

    def set_port(self, port: str, *, up: bool) -> None:
        with contextlib.suppress(CommandFailedError) if up else contextlib.nullcontext():
            self._ip(f"link set {port} {'up' if up else 'down'}")  # no such port: the host is off, and boots connected

    def add_root_leg(self, address: str) -> None:
        """Let the test itself reach the lab. Two bolts keep it a dead end: no forwarding from the leg, and a rule that
        drops what would be forwarded to or from it, should somebody switch forwarding on for the whole machine."""
        claim = self._claim
        leg, table = f"ag-{claim.id}", claim.tag
        rules = "".join(f"{way} {leg} drop; " for way in ("iifname", "oifname"))
        claim.outside(
            ["nft", "delete", "table", "inet", table],
            *("nft", "-f", "-"),
            stdin=f"table inet {table} {{ chain leg {{ type filter hook forward priority -300; {rules} }}; }}\n",
        )
        claim.outside(
            ["ip", "link", "del", leg],
            *("ip", "link", "add", leg, "type", "veth", "peer", "name", "root", "netns", str(self.box.pid)),
        )
        Path(f"/proc/sys/net/ipv4/conf/{leg}/forwarding").write_text("0")
        self._ip("link set root master br0 up")
        claim.outside([], "ip", "addr", "add", f"{address}/24", "dev", leg)
        claim.outside([], "ip", "link", "set", leg, "up")

    # --- faults between two ports: "h1", "h2" …, "ci", "root"

    def block(self, one: str, other: str) -> None:
        self.block_one_way(one, other)
        self.block_one_way(other, one)

    def block_one_way(self, source: str, target: str) -> None:
        self._nft(f"add rule bridge fault fdrop iifname {source} oifname {target} drop")

    def lose(self, port: str, percent: float) -> None:
        """This share of the frames, in each direction."""
        for way in ("iifname", "oifname"):
            self._nft(f"add rule bridge fault fdrop {way} {port} numgen random mod 10000 < {int(percent * 100)} drop")

    def clear_faults(self) -> None:
        self._nft(NO_FAULTS)

    def _nft(self, script: str) -> None:
        self.box.in_network("nft", "-f", "-", stdin=script)
