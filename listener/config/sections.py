"""The sections of a configuration file: their shape, and the rules within each.

A section is the setting that the rest of the program uses, and never changes. The description of a setting is
what an error about it tells to write.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from listener.access import Role
from listener.config.address import DEFAULT_HOST, DEFAULT_PORT, HIGHEST_PORT
from listener.config.names import (
    OFF,
    Address,
    Duration,
    Keeping,
    Limit,
    Listen,
    LocalPath,
    Moment,
    Name,
    ProxyNetwork,
    Sha256,
    StudioRole,
    StudioToken,
    StudioUrl,
    User,
    Whole,
    loopback,
)
from listener.config.problems import Location, Problem
from listener.runs import RetryPolicy
from listener.signatures.weaknesses import is_common_secret
from listener.sites import Access


def utc(seconds: float) -> str:
    """Return Unix seconds as a time stamp (RFC 3339)."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Section(BaseModel):
    """A map of settings: only known keys, only the right types. The validator of the whole file is enough."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )


class TlsSection(Section):
    """The listener's own TLS."""

    certificate: str = Field(description="the path of the certificate and those that signed it, as PEM")
    key: str = Field(description="the path of the certificate's private key, as PEM")


class ServerSection(Section):
    """Where the listener answers HTTP. Times are seconds."""

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

    def warnings(self) -> Iterator[str]:
        """Yield what is valid but risky."""
        if not loopback(self.host) and self.tls is None and not self.trusted_proxies:
            yield (
                "server.host: other machines can reach the listener, and tokens and secrets travel to it in "
                "clear; write server.tls, or put a reverse proxy with TLS in front of it and write its "
                "address as server.trusted_proxies"
            )


@dataclass(frozen=True, slots=True)
class PathTo:
    """What must be at the path that a setting names."""

    remedy: str
    socket: bool = False
    private: bool = False
    """Whether only its owner may open it."""
    trusted: str = ""
    """Why nobody else may write to it; empty if that doesn't matter."""


class SshSection(Section):
    """What the listener logs in with, on every host."""

    known_hosts: Annotated[
        str,
        PathTo(
            "make it with ssh-keyscan, and verify each key with its host's administrator",
            trusted="which says what hosts to trust",
        ),
    ] = Field(description="the path of a file with the hosts' keys, in OpenSSH's format")
    identity: Annotated[str | None, PathTo("make a key with ssh-keygen -t ed25519 -N ''", private=True)] = (
        Field(None, description="the path of the private key to log in with")
    )
    agent: Annotated[
        str | None,
        PathTo("start an agent as the listener's user, such as ssh-agent -a with that path", socket=True),
    ] = Field(None, description="the path of an ssh agent's socket, or env:SSH_AUTH_SOCK")
    config: Annotated[
        str | None,
        PathTo(
            "write one in OpenSSH's format, or remove the setting", trusted="which can name commands to run"
        ),
    ] = Field(None, description="the path of an OpenSSH configuration with the hosts")

    def broken(self) -> Iterator[Problem]:
        """Yield every rule that the section breaks."""
        if not self.identity and not self.agent:
            yield Problem(
                ("ssh", "identity"),
                "is missing: the path of the private key to log in with; or write agent, the path of the "
                "socket of an ssh agent that holds one",
            )


class HostSection(Section):
    """A repo host."""

    address: Address = Field(description="the host's name, its IP address, or its alias in ssh.config")
    port: Whole | None = Field(None, ge=1, le=HIGHEST_PORT, description="the port of its sshd, such as 22")
    user: User = Field(description="the user that owns the repositories on it, such as crafter")
    via: str | None = Field(None, description="the name of the configured host to reach it through")
    access: Access = Field(
        Access.SH,
        strict=False,
        description="sh, restricted where the key is bound to sync-staging-shell, or git where the account "
        "runs nothing but git (git-shell)",
    )


class TokenSection(Section):
    """An API credential."""

    name: Name = Field(description="a name for the logs, such as ci")
    sha256: Sha256 = Field(exclude=True, description="the hex SHA-256 of the token's text")
    role: Role = Field(strict=False, description="admin or member")
    sites: list[str] = Field(default_factory=list, description="a list of the sites that a member may sync")
    expires: Moment | None = Field(None, description="a time such as 2027-01-31T00:00:00Z")

    @field_serializer("expires", when_used="json-unless-none")
    def _time(self, expires: float) -> str:
        return utc(expires)

    def broken(self, at: Location) -> Iterator[Problem]:
        """Yield every rule that the token at this place breaks."""
        place = (*at, "sites")
        if self.role is Role.MEMBER and not self.sites:
            yield Problem(place, "is missing: write the list of sites that this member may sync")
        if self.role is Role.ADMIN and self.sites:
            yield Problem(
                place, "has no effect for an admin, who covers every site; remove it, or write role: member"
            )

    def warnings(self, place: str) -> Iterator[str]:
        """Yield what is valid but risky."""
        if is_common_secret(self.sha256, self.name):
            yield (
                f"{place}.sha256: is the hash of a word that is easy to guess; "
                "make another token with token new"
            )


class StudioSection(Section):
    """CrafterCMS Studio: asked before a branch is moved, or who a caller is."""

    url: StudioUrl = Field(description="Studio's address, such as http://studio.example.com:8080/studio")
    """It ends with Studio's own path, without a slash."""
    token: StudioToken | None = Field(
        None, repr=False, description="the access token of a Studio user, such as credential:studio-token"
    )
    management_token: StudioToken | None = Field(
        None, repr=False, description="Studio's management token, such as credential:studio-management"
    )
    callers: list[StudioRole] = Field(
        default_factory=list, description="a list of the Studio roles that may call, such as [admin]"
    )
    timeout: Limit = Field(5.0, description="how long Studio may take to answer, such as 5s")

    @field_serializer("token", "management_token")
    def _given(self, token: str | None) -> bool:
        return token is not None

    def broken(self) -> Iterator[Problem]:
        """Yield every rule that the section breaks."""
        tokens = ("token", "management_token")
        given = [key for key in tokens if key in self.model_fields_set]
        if not given and not self.callers:
            yield Problem(("studio",), f"is asked for nothing; write {', '.join(tokens)} or callers")
        for key in given:
            if getattr(self, key) is None:
                yield Problem(("studio", key), "is empty; write the token, or remove the setting")

    def warnings(self) -> Iterator[str]:
        """Yield what is valid but risky."""
        if self.url.startswith("http:") and not loopback(urlsplit(self.url).hostname or ""):
            yield (
                "studio.url: the tokens travel to another machine in clear; "
                "write https:// if Studio supports it"
            )


class SyncSection(Section):
    """How syncs go. Times are seconds."""

    quiet: Duration = Field(2.0, description="how long a repository must have been left alone, such as 2s")
    patience: Duration = Field(900.0, description="after how long a publish counts as crashed, such as 15m")
    step_timeout: Limit = Field(60.0, description="how long a step on a host may take, such as 60s")
    connect_timeout: Limit = Field(15.0, description="how long logging in may take, such as 15s")
    transfer_timeout: Limit = Field(
        1800.0, description="how long a transfer of objects to another host may take, such as 30m"
    )
    cache: LocalPath = Field(
        "/var/lib/sync-staging/cache", description="the absolute path of a folder for the cache of objects"
    )
    keep_backups: Keeping = Field(
        30 * 86400.0, description="how long the commits that a reset took away are kept, such as 30d"
    )
    concurrency: Whole = Field(16, ge=1, le=256, description="how many syncs run at once, such as 16")
    per_host: Whole = Field(5, ge=1, le=256, description="how many syncs may need the same host, such as 5")
    settle: Duration = Field(
        0.0, description="how long an automatic sync waits for further publishes, such as 10s"
    )
    settle_most: Duration = Field(60.0, description="how long it waits for them at most, such as 60s")
    interval: Duration = Field(
        900.0, description="how often each site is checked for drift, such as 15m; 0 for never"
    )
    attempts: Whole = Field(20, ge=1, le=1000, description="how often a failing sync is tried, such as 20")
    backoff: Limit = Field(1.0, description="how long the second attempt waits, such as 1s")
    backoff_most: Limit = Field(300.0, description="how long any attempt waits at most, such as 5m")

    @property
    def retry(self) -> RetryPolicy:
        """How a failing sync is tried again."""
        return RetryPolicy(self.attempts, self.backoff, self.backoff_most)

    def broken(self) -> Iterator[Problem]:
        """Yield every rule that the section breaks."""
        if self.backoff_most < self.backoff:
            yield Problem(
                ("sync", "backoff_most"),
                "is shorter than sync.backoff; write a longer duration, or a shorter backoff",
            )


class HistorySection(Section):
    """What is kept of the past."""

    age: Keeping = Field(
        90 * 86400.0, description="how long ended runs, their logs and deliveries are kept, such as 90d"
    )
    runs: Whole = Field(100_000, ge=1, le=10**9, description="how many ended runs are kept, such as 100000")
    deliveries: Whole = Field(
        100_000, ge=1, le=10**9, description="how many deliveries of a hook are kept whole, such as 100000"
    )


class MetricsSection(Section):
    """Where Prometheus finds the figures."""

    listen: Listen = Field(
        "127.0.0.1:9787", description="the address of GET /metrics, such as 127.0.0.1:9787, or off"
    )
    sites: Whole = Field(
        50, ge=0, le=10_000, description="the number of sites above which their figures are sums, such as 50"
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and the port to listen on; None for nowhere."""
        if self.listen == OFF:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    def warnings(self) -> Iterator[str]:
        """Yield what is valid but risky."""
        if self.address is not None and not loopback(self.address[0]):
            yield "metrics.listen: other machines can read the figures, whose labels name sites and hooks"


class LogSection(Section):
    """What the listener logs, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="such as info")
    format: Literal["auto", "json", "console"] = Field("auto", description="such as auto")
