"""A name server for the lab: its own hosts by name, NXDOMAIN for everything else.

Without an answer from upstream, every lookup of an unknown name inside a container hangs for ten seconds, because the
engine's resolver stays silent when its upstream does. Run as a file, with nothing but the standard library.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Mapping

A = 1
AUTHORITATIVE = 0x8580
NXDOMAIN = 3


def question(query: bytes) -> tuple[str, int, bytes]:
    """The name asked for, the record type, and the question section as it came."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return ".".join(labels).lower(), kind, query[12 : at + 5]


def answer(query: bytes, zone: Mapping[str, str]) -> bytes | None:
    """None for what is no query at all."""
    try:
        name, kind, asked = question(query)
    except (IndexError, struct.error):
        return None
    address = zone.get(name)
    record = b""
    if address is not None and kind == A:
        record = struct.pack("!HHHIH", 0xC00C, A, 1, 5, 4) + socket.inet_aton(address)
    flags = AUTHORITATIVE | (NXDOMAIN if address is None else 0)
    return query[:2] + struct.pack("!HHHHH", flags, 1, 1 if record else 0, 0, 0) + asked + record


def serve(address: str, zone: Mapping[str, str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address, 53))
        while True:
            query, peer = listener.recvfrom(4096)
            if (reply := answer(query, zone)) is not None:
                listener.sendto(reply, peer)


if __name__ == "__main__":
    serve(sys.argv[1], dict(entry.split("=", 1) for entry in sys.argv[2:]))
