"""Sites, their environments, and the repositories that carry them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from listener.errors import EnvironmentNotFoundError, SiteNotFoundError

CREATED_BY_STUDIO = re.compile(r"[a-z0-9_][a-z0-9_-]{0,49}")
"""The ids that Studio allows for a new site, but none that begins with a dash."""

PLACEHOLDER = "{site}"
"""Stands for the site's id in the paths of a pattern."""


class Policy(StrEnum):
    """How an environment that has diverged from live is made equal to it."""

    FORWARD = "forward"
    """By a new commit with live's tree and both branches as parents: everybody who pulls can fast-forward."""
    RESET = "reset"
    """By moving the branch to live's commit; the old commit is kept under a backup ref."""
    FAST_FORWARD = "fast-forward"
    """Not at all: a branch that is not an ancestor of live is refused."""


class Access(StrEnum):
    """What the account on a host may run."""

    SH = "sh"
    """A POSIX shell."""
    GIT = "git"
    """Only git's own services, as with git-shell."""
    RESTRICTED = "restricted"
    """Only the script that is installed there, for a restricted key."""


@dataclass(frozen=True, slots=True)
class Host:
    """A repo host and how to log in there."""

    name: str
    address: str
    """Its name or IP address, or an alias of the OpenSSH configuration."""
    port: int | None
    """None for the port of the OpenSSH configuration, which is 22 if it sets none."""
    user: str
    known_hosts: str
    """Path of the OpenSSH known_hosts file that must contain its key."""
    identity: str | None
    """Path of the private key that is offered first; None to offer the agent's keys only."""
    via: str | None = None
    """The configured name of the jump host; None for a direct connection."""
    access: Access = Access.SH
    agent: str | None = None
    """Path of the socket of the ssh agent whose keys are offered next; None for no agent."""
    config: str | None = None
    """Path of the OpenSSH configuration that applies to it; None for none."""


@dataclass(frozen=True, slots=True)
class RepositoryAddress:
    """One published repository: the configured name of its host and the path there."""

    host: str
    path: str
    root: str = ""
    """The folder that no symbolic link may lead out of; empty for no such limit."""

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


@dataclass(frozen=True, slots=True)
class Leg:
    """One repository that carries an environment's branch, and the live branch that it follows."""

    site: str
    environment: str
    repository: RepositoryAddress
    branch: str
    source: RepositoryAddress
    """Where live lies."""
    live: str
    policy: Policy

    def __str__(self) -> str:
        return str(self.repository)

    @property
    def key(self) -> tuple[str, str]:
        """Its identity among the legs of its environment: repository and branch."""
        return str(self.repository), self.branch

    @property
    def own(self) -> bool:
        """Whether the branch lies in live's own repository."""
        return self.repository == self.source


@dataclass(frozen=True, slots=True)
class Environment:
    """A staging environment of a site: a branch kept equal to the site's live branch, on every leg."""

    site: str
    name: str
    legs: tuple[Leg, ...]
    """At least one."""
    policy: Policy
    follow: bool
    """Whether hooks and the schedule sync it; else only a call that names it does."""

    @classmethod
    def of(
        cls,
        site: str,
        name: str,
        source: RepositoryAddress,
        live: str,
        policy: Policy,
        carriers: Iterable[tuple[RepositoryAddress, str]],
        *,
        follow: bool,
    ) -> "Environment":
        """Return an environment that follows `live` in `source`; a carrier is a repository and a branch."""
        legs = tuple(Leg(site, name, at, branch, source, live, policy) for at, branch in carriers)
        return cls(site, name, legs, policy, follow)

    @property
    def where(self) -> str:
        """Its repositories, for a person."""
        return ", ".join(map(str, self.legs))

    @property
    def lane(self) -> str:
        """The names of all hosts that its runs need, live's included."""
        hosts = {leg.source.host for leg in self.legs} | {leg.repository.host for leg in self.legs}
        return ",".join(sorted(hosts))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The configured names of the hosts of its legs, each once."""
        return tuple(dict.fromkeys(leg.repository.host for leg in self.legs))


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
class SitePattern:
    """Sites that are configured together: their ids match a pattern, and their paths contain the id."""

    text: str
    """Characters of a site id, and one `*`, which stands for any characters."""
    template: Site
    """The settings of each site, with `{site}` in place of the id in each path."""

    @property
    def ends(self) -> tuple[str, str]:
        """What an id begins and ends with."""
        before, _, after = self.text.partition("*")
        return before, after

    def site(self, site_id: str) -> Site:
        """Return the site of an id that matches."""

        def named(address: RepositoryAddress) -> RepositoryAddress:
            return replace(address, path=address.path.replace(PLACEHOLDER, site_id))

        def leg(each: Leg) -> Leg:
            return replace(each, site=site_id, repository=named(each.repository), source=named(each.source))

        environments = {
            name: replace(each, site=site_id, legs=tuple(map(leg, each.legs)))
            for name, each in self.template.environments.items()
        }
        return replace(
            self.template,
            id=site_id,
            repository=named(self.template.repository),
            environments=environments,
        )


@dataclass(frozen=True, slots=True)
class Sites:
    """All configured sites. A site id from outside is only looked up here, and never used otherwise."""

    by_id: Mapping[str, Site] = field(default_factory=dict)
    patterns: tuple[SitePattern, ...] = ()
    """The most specific one first."""
    _ranked: Mapping[tuple[int, int], Mapping[tuple[str, str], tuple[int, SitePattern]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Patterns and their ranks, by the lengths of both ends and by the ends: to find one takes as long as to
    try each combination of lengths, not each pattern."""

    @classmethod
    def of(cls, sites: Iterable[Site], patterns: Iterable[SitePattern] = ()) -> "Sites":
        """Return the collection of these sites and patterns."""
        ordered = sorted(patterns, key=lambda pattern: -len(pattern.text))
        ranked: dict[tuple[int, int], dict[tuple[str, str], tuple[int, SitePattern]]] = {}
        for rank, pattern in enumerate(ordered):
            before, after = pattern.ends
            ranked.setdefault((len(before), len(after)), {})[before, after] = rank, pattern
        return cls({site.id: site for site in sites}, tuple(ordered), ranked)

    def __iter__(self) -> Iterator[Site]:
        """Iterate over the sites that are configured by their ids."""
        return iter(self.by_id.values())

    def __contains__(self, site_id: object) -> bool:
        return isinstance(site_id, str) and (site_id in self.by_id or self.pattern(site_id) is not None)

    def pattern(self, site_id: str) -> SitePattern | None:
        """Return the pattern that a site belongs to; None if it is configured by its id, or unknown."""
        if not self._ranked or site_id in self.by_id or CREATED_BY_STUDIO.fullmatch(site_id) is None:
            return None
        found = [
            by_ends.get((site_id[:before], site_id[len(site_id) - after :]))
            for (before, after), by_ends in self._ranked.items()
            if before + after <= len(site_id)
        ]
        best = min((each for each in found if each is not None), default=None, key=lambda each: each[0])
        return None if best is None else best[1]

    def site(self, site_id: str) -> Site:
        """Return the site of that id, or raise `SiteNotFoundError`.

        Whether a site of a pattern exists is not known here: `listener.directory` asks its host.
        """
        if site_id in self.by_id:
            return self.by_id[site_id]
        pattern = self.pattern(site_id)
        if pattern is None:
            raise SiteNotFoundError
        return pattern.site(site_id)

    def environment(self, site_id: str, name: str) -> Environment:
        """Return one environment of one site; raise `SiteNotFoundError` or `EnvironmentNotFoundError`."""
        return self.site(site_id).environment(name)

    def find(self, site_id: str, name: str) -> Environment | None:
        """Return the same, or None if it is not configured."""
        try:
            return self.environment(site_id, name)
        except (SiteNotFoundError, EnvironmentNotFoundError):
            return None
