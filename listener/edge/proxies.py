"""The client's address behind proxies: `X-Forwarded-For`, from trusted proxies only.

The header is a list. Each proxy adds the address of its own client on the right. So the client is the first
address from the right that is not a trusted proxy. Everything left of it comes from the client, and is not
trusted. `Forwarded` (RFC 7239) is not read: most proxies pass on what the client has sent there.
"""

import re
from dataclasses import dataclass

from aiohttp import web

from listener.errors import BadRequestError
from listener.networks import Address, Network, address_of, within

FOR = "X-Forwarded-For"
PROTO = "X-Forwarded-Proto"

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
"""Some proxies add the client's port."""

_NOBODY = re.compile(r"unknown|unix:.*|_[A-Za-z0-9._-]+", re.IGNORECASE)
"""What proxies write instead of an address. nginx writes `unix:` for a client of a Unix socket; RFC 7239
(6.2, 6.3) has the others."""

UNKNOWN = "unknown"
"""The address of such a client. It lies in no network and is not local; all these clients count as one."""


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The address and scheme of a request's client."""

    remote: str
    scheme: str


def client_address_of(request: web.Request, trusted: tuple[Network, ...]) -> ClientAddress:
    """Return the client of a request; raise `BadRequestError` if a trusted proxy sent an invalid header."""
    peer = address_of(request.remote or "")
    remote, scheme = (str(peer) if peer else request.remote or ""), request.scheme
    if not within(remote, trusted):
        return ClientAddress(remote, scheme)
    for said in reversed(_listed(request, FOR)):
        if _NOBODY.fullmatch(said):
            return ClientAddress(UNKNOWN, _scheme(request, scheme))
        address = _address(said)
        if address is None:
            raise BadRequestError(f"{FOR} must hold the client's IP address where a trusted proxy wrote it.")
        remote = str(address)
        if not within(remote, trusted):
            break
    return ClientAddress(remote, _scheme(request, scheme))


def _scheme(request: web.Request, own: str) -> str:
    said = _listed(request, PROTO)
    if not said:
        return own
    if said[-1].lower() not in {"http", "https"}:
        raise BadRequestError(f"{PROTO} must be http or https.")
    return said[-1].lower()


def _listed(request: web.Request, name: str) -> list[str]:
    """Return the members of a list header, from all its lines."""
    members = ",".join(request.headers.getall(name, [])).split(",")
    return [member.strip() for member in members if member.strip()]


def _address(said: str) -> Address | None:
    match = _WITH_PORT.fullmatch(said)
    return address_of((match[1] or match[2]) if match else said)
