"""Addresses and networks: who counts as whom, however it is spelt."""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOUSEHOLD_BITS = 64
"""Of an IPv6 address, what a provider gives to one customer (RFC 6177): the rest is theirs to choose."""


def address_of(text: str) -> Address | None:
    """Return an address, as IPv4 where IPv6 only wraps it (`::ffff:192.0.2.1`); None for other text."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that are spelt out; raise `ValueError` for other text."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def within(text: str | None, networks: Iterable[Network]) -> bool:
    """Return whether an address lies in one of the networks; what is no address lies in none."""
    address = address_of(text or "")
    return address is not None and any(address in network for network in networks)


def household(text: str | None) -> str:
    """Return what is counted as one client: an IPv4 address, or the /64 around one of IPv6."""
    address = address_of(text or "")
    if address is None:
        return ""
    if address.version == 4:  # noqa: PLR2004 (IPv4)
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, HOUSEHOLD_BITS)))
