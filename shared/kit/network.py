"""Whom to count an address as, where somebody is only known by it."""

import ipaddress


def neighbourhood(address: str) -> str:
    """The address; of IPv6 the network, for whoever has one of its addresses has all 2^64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
