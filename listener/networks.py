"""Addresses and networks: which addresses count as the same client, however they are written."""

import ipaddress
from collections.abc import Collection, Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CLIENT_BITS = 64
"""The part of an IPv6 address that a provider assigns to one customer (RFC 6177), who chooses the rest."""


LONGEST = 64
"""Characters of an address that is remembered once parsed: each request needs its client's several times."""


def address_of(text: str) -> Address | None:
    """Return an address, as IPv4 if it is mapped into IPv6 (`::ffff:192.0.2.1`); None for other text."""
    return _remembered_address(text) if len(text) <= LONGEST else _address_of(text)


def _address_of(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


_remembered_address = lru_cache(4096)(_address_of)


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse networks; raise `ValueError` for other text."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def within(text: str | None, networks: Collection[Network]) -> bool:
    """Return whether an address lies in one of the networks; other text lies in none."""
    address = address_of(text or "") if networks else None
    return address is not None and any(address in network for network in networks)


NETWORK_BITS = {4: (16, 24, 32), 6: (32, 48, CLIENT_BITS)}
"""The widths of the networks that an address is counted in, widest first: one owner may have a whole one."""

NetworkKey = tuple[int, int, int]


def network_keys(text: str | None) -> tuple[NetworkKey, ...]:
    """Return keys of the networks around an address, the widest first; all other text shares one key."""
    return _network_keys(address_of(text or ""))


@lru_cache(4096)
def _network_keys(address: Address | None) -> tuple[NetworkKey, ...]:
    if address is None:
        return ((0, 0, 0),) * 3
    number, bits = int(address), address.max_prefixlen
    return tuple((address.version, wide, number >> bits - wide) for wide in NETWORK_BITS[address.version])


def client_key(text: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    return _client_key(address_of(text or ""))


@lru_cache(4096)
def _client_key(address: Address | None) -> str:
    if address is None:
        return ""
    if address.version == 4:  # noqa: PLR2004 (IPv4)
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, CLIENT_BITS)))
