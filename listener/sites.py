"""Sites, their environments, and where these lie."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from listener.errors import EnvironmentNotFoundError, SiteNotFoundError


class Policy(StrEnum):
    """How an environment that has diverged from live is made equal to it."""

    FORWARD = "forward"
    """By a new commit with live's tree and both branches as parents: whoever pulls fast-forwards."""
    RESET = "reset"
    """By moving the branch to live's commit; the old commit is kept under a backup ref."""
    FAST_FORWARD = "fast-forward"
    """Not at all: only an ancestor of live is moved."""


@dataclass(frozen=True, slots=True)
class Host:
    """A repo host and how to log in there."""

    name: str
    address: str
    """Its name or IP address, or an alias of the OpenSSH configuration."""
    port: int | None
    """None for what the OpenSSH configuration says, and 22 where that says nothing."""
    user: str
    known_hosts: str
    """Path of the OpenSSH known_hosts file that its key must be in."""
    identity: str | None
    """Path of the private key that is shown first; None for the agent's keys alone."""
    via: str | None = None
    """The configured name of the host through which it is reached; None for directly."""
    agent: str | None = None
    """Path of the socket of the ssh agent whose keys are shown then; None for no agent."""
    config: str | None = None
    """Path of the OpenSSH configuration that says how it is reached; None for none at all."""


@dataclass(frozen=True, slots=True)
class RepositoryAddress:
    """One published repository: the configured name of its host and the path there."""

    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


@dataclass(frozen=True, slots=True)
class Environment:
    """A staging environment of a site: a branch kept equal to the site's live branch."""

    site: str
    name: str
    repository: RepositoryAddress
    branch: str
    live: str
    policy: Policy
    follow: bool
    """Whether hooks sync it, or only a call that names it."""


@dataclass(frozen=True, slots=True)
class Site:
    """A CrafterCMS site."""

    id: str
    repository: RepositoryAddress
    live: str
    environments: Mapping[str, Environment]

    def environment(self, name: str) -> Environment:
        """Return the environment of that name, or raise `EnvironmentNotFoundError` (always for `live`)."""
        if name not in self.environments:
            raise EnvironmentNotFoundError
        return self.environments[name]

    @property
    def following(self) -> tuple[Environment, ...]:
        """The environments that every live publish syncs."""
        return tuple(e for e in self.environments.values() if e.follow)


@dataclass(frozen=True, slots=True)
class Sites:
    """All configured sites. A site id from outside is only ever looked up here."""

    by_id: Mapping[str, Site] = field(default_factory=dict)

    @classmethod
    def of(cls, sites: Iterable[Site]) -> "Sites":
        """Return the sites, to be found by their ids."""
        return cls({site.id: site for site in sites})

    def __iter__(self) -> Iterator[Site]:
        return iter(self.by_id.values())

    def __contains__(self, site_id: object) -> bool:
        return site_id in self.by_id

    def site(self, site_id: str) -> Site:
        """Return the site of that id, or raise `SiteNotFoundError`."""
        if site_id not in self.by_id:
            raise SiteNotFoundError
        return self.by_id[site_id]

    def environment(self, site_id: str, name: str) -> Environment:
        """Return one environment of one site; raise `SiteNotFoundError` or `EnvironmentNotFoundError`."""
        return self.site(site_id).environment(name)
