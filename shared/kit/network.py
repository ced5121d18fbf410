"""What an address stands for: whom to count it as, where somebody is only known by it, and whether users may have us go there."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200")))
"""Where clouds keep a machine's metadata outside of the link-local networks."""
_NAT64 = ip_network("64:ff9b::/96")


def neighbourhood(address: str) -> str:
    """The address; of IPv6 the network, for whoever has one of its addresses has all 2^64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


def forbidden(address: IPv4Address | IPv6Address) -> str:
    """Why nothing is sent there; empty when it may be."""
    inner = _inner(address)
    if inner is not None:
        return forbidden(inner)
    if address.is_link_local:
        return "a link-local address"
    if address in _METADATA:
        return "a cloud's metadata"
    if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
        return "no host's address"
    return ""


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one only wraps."""
    if not isinstance(address, IPv6Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
