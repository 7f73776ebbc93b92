"""Who the client is, where proxies stand in front: `X-Forwarded-For`, from those that are trusted alone.

The header is a list to which each proxy adds, on the right, whom it has spoken to: the first address from the
right that is no trusted proxy's is the client, and what stands left of it is only what the client says.
`Forwarded` (RFC 7239) is not read: most proxies pass on what the client has put there.
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
"""What proxies write that don't know the client's address, or don't tell it: nginx writes `unix:` for a
client that came by a socket of the file system; the others are RFC 7239's (6.2, 6.3)."""

UNKNOWN = "unknown"
"""Stands for the address of such a client. It lies in no network and is not this machine's; all of these
clients are counted as one."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    remote: str
    scheme: str


def client_of(request: web.Request, trusted: tuple[Network, ...]) -> Client:
    """Return the client of a request; raise `BadRequestError` where a trusted proxy names what is none."""
    peer = address_of(request.remote or "")
    remote, scheme = (str(peer) if peer else request.remote or ""), request.scheme
    if not within(remote, trusted):
        return Client(remote, scheme)
    for said in reversed(_listed(request, FOR)):
        if _NOBODY.fullmatch(said):
            return Client(UNKNOWN, _scheme(request, scheme))
        address = _address(said)
        if address is None:
            raise BadRequestError(f"{FOR} must hold the client's IP address where a trusted proxy wrote it.")
        remote = str(address)
        if not within(remote, trusted):
            break
    return Client(remote, _scheme(request, scheme))


def _scheme(request: web.Request, own: str) -> str:
    said = _listed(request, PROTO)
    if not said:
        return own
    if said[-1].lower() not in {"http", "https"}:
        raise BadRequestError(f"{PROTO} must be http or https.")
    return said[-1].lower()


def _listed(request: web.Request, name: str) -> list[str]:
    """Return the members of a header that is a list, however many lines it stands on."""
    members = ",".join(request.headers.getall(name, [])).split(",")
    return [member.strip() for member in members if member.strip()]


def _address(said: str) -> Address | None:
    match = _WITH_PORT.fullmatch(said)
    return address_of((match[1] or match[2]) if match else said)
