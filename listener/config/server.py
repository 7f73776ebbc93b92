"""The section `server`: where the listener answers HTTP, and what it allows those who are not known yet."""

from collections.abc import Iterator

from pydantic import Field

from listener.config.address import DEFAULT_HOST, DEFAULT_PORT, HIGHEST_PORT
from listener.config.made import ServerSettings, TlsSettings
from listener.config.names import Address, Duration, Limit, ProxyNetwork, Whole, loopback
from listener.config.shape import Section
from listener.networks import networks_of


class TlsSection(Section):
    """The listener's own TLS."""

    certificate: str = Field(description="the path of the certificate and those that signed it, as PEM")
    key: str = Field(description="the path of the certificate's private key, as PEM")


class ServerSection(Section):
    """Where the listener answers HTTP."""

    host: Address = Field(DEFAULT_HOST, description="the address to listen on, such as 127.0.0.1")
    port: Whole = Field(
        DEFAULT_PORT, ge=0, le=HIGHEST_PORT, description="the port to listen on, such as 8787"
    )
    wait: Duration = Field(55.0, description="how long a caller waits for its sync, such as 55s")
    body_timeout: Limit = Field(10.0, description="how long a request's body may take, such as 10s")
    drain: Duration = Field(30.0, description="how long running syncs may go on at a stop, such as 30s")
    session: Limit = Field(43200.0, description="how long a sign-in to the page lasts, such as 12h")
    tls: TlsSection | None = Field(None, description="a map of certificate and key")
    trusted_proxies: list[ProxyNetwork] = Field(
        default_factory=list,
        description="a list of the addresses and networks of proxies in front, such as [127.0.0.1]",
    )
    head_timeout: Limit = Field(10.0, description="how long a request's head may take, such as 10s")
    connections: Whole = Field(
        1000, ge=8, le=100_000, description="how many connections may be open, such as 1000"
    )
    refusals: Whole = Field(
        30,
        ge=1,
        le=10**6,
        description="how many requests of one client may be refused in a minute, such as 30",
    )
    unverified_bytes: Whole = Field(
        256 << 20,
        ge=128 << 20,
        le=1 << 40,
        description="how many bytes of bodies may be held before they are verified, such as 268435456",
    )


def made_server(section: ServerSection) -> ServerSettings:
    """Return the settings that a right section describes."""
    return ServerSettings(
        host=section.host,
        port=section.port,
        wait=section.wait,
        body_timeout=section.body_timeout,
        drain=section.drain,
        session=section.session,
        tls=None if section.tls is None else TlsSettings(section.tls.certificate, section.tls.key),
        trusted_proxies=networks_of(section.trusted_proxies),
        head_timeout=section.head_timeout,
        connections=section.connections,
        refusals=section.refusals,
        unverified_bytes=section.unverified_bytes,
    )


def server_warnings(server: ServerSection) -> Iterator[str]:
    """Yield what is allowed, but better known."""
    if not loopback(server.host) and server.tls is None and not server.trusted_proxies:
        yield (
            "server.host: others than this machine reach the listener, and tokens and secrets travel to it "
            "in clear: write server.tls, or put a reverse proxy with TLS in front of it and write its "
            "address as server.trusted_proxies"
        )
