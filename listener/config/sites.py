"""The section `sites`: its shape, the rules within it, and the sites that it describes."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from listener.config.names import BranchName, Flag, Name, RemotePath, branch_fault
from listener.config.problems import OTHER, Location, Problem, shown
from listener.config.sections import HostSection, Section
from listener.sites import (
    PLACEHOLDER,
    Access,
    Environment,
    Policy,
    RepositoryAddress,
    Site,
    SitePattern,
    Sites,
)

FOLLOW_CHOICE = (
    "in live's own repository there is no default. With staging enabled, Studio publishes items to staging "
    "first, and a sync removes the items that wait there for review. Write follow: true to let every "
    "publish to live sync this environment, or follow: false to sync it only when a call names it"
)

LIVE_NAME = "live"


class RepositorySection(Section):
    """A published repository."""

    host: str = Field(description="the name of one of the configured hosts")
    path: RemotePath = Field(description="the repository's absolute path on its host")

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the repository."""
        return self.host, self.path

    @property
    def address(self) -> RepositoryAddress:
        """Its address. The path of a pattern must stay in the folder that contains its sites."""
        before, found, _ = self.path.partition(PLACEHOLDER)
        return RepositoryAddress(self.host, self.path, (before.rpartition("/")[0] or "/") if found else "")


class CarrierSection(RepositorySection):
    """A repository that carries an environment's branch."""

    branch: BranchName | None = Field(None, description="its branch, if that has another name there")


class EnvironmentSection(Section):
    """A staging environment."""

    branch: BranchName | None = Field(None, description="its branch, if that has another name than itself")
    policy: Policy = Field(Policy.FORWARD, strict=False, description="forward, reset or fast-forward")
    follow: Flag | None = Field(None, description=FOLLOW_CHOICE)
    repositories: list[CarrierSection] = Field(
        default_factory=list,
        min_length=1,
        description="a list of one or more maps of host and path: the repositories that carry its branch",
    )

    def carries(self, repository: RepositorySection) -> bool:
        """Return whether its branch is in this repository, which is live's own."""
        return not self.repositories or any(each.key == repository.key for each in self.repositories)


class SiteSection(Section):
    """A CrafterCMS site."""

    repository: RepositorySection = Field(
        description="a map of host and path: the site's published repository"
    )
    live: BranchName = Field(LIVE_NAME, description="the branch that the environments are made equal to")
    environments: dict[Name, EnvironmentSection] = Field(
        min_length=1, description="a map of the site's staging environments, at least one"
    )

    def repositories(self, at: Location) -> Iterator[tuple[Location, RepositorySection]]:
        """Yield every repository that the site at this place names, with its place."""
        yield (*at, "repository"), self.repository
        for name, environment in self.environments.items():
            for index, each in enumerate(environment.repositories):
                yield (*at, "environments", name, "repositories", index), each

    def environment(self, site: str, name: str) -> Environment:
        """Return the environment that its section describes."""
        section, own = self.environments[name], self.repository.address
        branch = section.branch or name
        carriers = [(each.address, each.branch or branch) for each in section.repositories]
        return Environment.of(
            site,
            name,
            own,
            self.live,
            section.policy,
            carriers or [(own, branch)],
            follow=section.follow is not False,
        )

    def site(self, name: str) -> Site:
        """Return the site, or the template of the sites of a pattern, that this section describes."""
        environments = {each: self.environment(name, each) for each in self.environments}
        return Site(name, self.repository.address, self.live, environments)


def built_sites(sections: Mapping[str, SiteSection]) -> Sites:
    """Return the sites, and the patterns of sites, that the sections describe."""
    return Sites.of(
        (section.site(name) for name, section in sections.items() if "*" not in name),
        (SitePattern(name, section.site(name)) for name, section in sections.items() if "*" in name),
    )


def broken_sites(sites: Mapping[str, SiteSection], hosts: Mapping[str, HostSection]) -> Iterator[Problem]:
    """Yield every rule that sites break, alone or together."""
    first: dict[tuple[str, str], Location] = {}
    taken = _Branches()
    for name, site in sites.items():
        at, pattern = ("sites", name), "*" in name
        yield from _placeholders(at, site, hosts, pattern=pattern)
        place = (*at, "repository")
        if not pattern and first.setdefault(site.repository.key, place) != place:
            text = f"is the same as {OTHER}; each site needs its own published repository"
            yield Problem(place, text, first[site.repository.key])
        # Which sites a pattern covers is not known here: it is compared with itself alone.
        others = _Branches() if pattern else taken
        others.take((*site.repository.key, site.live), (*at, LIVE_NAME))
        for each in site.environments:
            yield from _environment((*at, "environments", each), site, each, others)


def _placeholders(
    at: Location, site: SiteSection, hosts: Mapping[str, HostSection], *, pattern: bool
) -> Iterator[Problem]:
    """Yield the paths that need `{site}` and don't contain it, or contain it without need."""
    for place, repository in site.repositories(at):
        if repository.path.count(PLACEHOLDER) != pattern:
            text = (
                "must contain {site} once" if pattern else "contains {site}, which only sites by pattern have"
            )
            yield Problem((*place, "path"), f"{text}; write one such as {_PATHS[pattern]}")
        host = hosts.get(repository.host)
        if pattern and host is not None and host.access is Access.GIT:
            yield Problem(
                (*place, "host"),
                "has access: git, and sites by pattern need a host with access: sh or restricted",
            )


_PATHS = ("/srv/sites/mysite/published", "/srv/sites/{site}/published")


def _environment(at: Location, site: SiteSection, name: str, taken: "_Branches") -> Iterator[Problem]:
    """Yield what is wrong with an environment; `taken` are the branches of the others."""
    section = site.environments[name]
    place = (*at, "branch") if section.branch else at
    if name == LIVE_NAME:
        yield Problem(place, "live itself is never an environment; remove it")
        return
    if not section.branch and (fault := branch_fault(name)):
        yield Problem(place, f"{fault}, or set the environment's branch")
        return
    if section.follow is None and section.carries(site.repository):
        yield Problem((*at, "follow"), f"is missing: {FOLLOW_CHOICE}")
    branch = section.branch or name
    carriers = {(*at, "repositories", index): each for index, each in enumerate(section.repositories)}
    seen: dict[tuple[str, str], tuple[Location, str]] = {}
    for where, carrier in carriers.items():
        its_branch = carrier.branch or branch
        first, first_branch = seen.setdefault(carrier.key, (where, its_branch))
        if first_branch != its_branch:
            yield Problem(where, f"is the same repository as {OTHER}; make it another environment", first)
    for where, carrier in carriers.items():
        yield from taken.collisions((*carrier.key, carrier.branch or branch), where)
    if not carriers:
        yield from taken.collisions((*site.repository.key, branch), place)


class _Branches:
    """The branches that are taken in each repository, with their places in the configuration."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, str, str], Location] = {}
        self._below: dict[tuple[str, str, str], tuple[str, Location]] = {}
        """By each folder of branches, a branch in it."""

    def take(self, key: tuple[str, str, str], where: Location) -> Location:
        """Take a branch (host, path, name), and return the place that took it first."""
        host, path, branch = key
        for folder in _folders(branch):
            self._below.setdefault((host, path, folder), (branch, where))
        return self._at.setdefault(key, where)

    def collisions(self, key: tuple[str, str, str], where: Location) -> Iterator[Problem]:
        """Take a branch for an environment; yield why that is not possible."""
        first = self.take(key, where)
        if first == where:
            if beside := self._beside(key):
                yield _collision(where, key[-1], *beside)
        elif len(first) == len(("sites", "site", LIVE_NAME)):
            yield Problem(where, "has the branch that it would follow; write a branch of its own")
        else:
            yield Problem(where, f"has the same branch as {OTHER}; each environment needs its own", first)

    def _beside(self, key: tuple[str, str, str]) -> tuple[str, Location] | None:
        """Return a branch that git can't have beside this one, because one would be the other's folder."""
        host, path, branch = key
        for folder in _folders(branch):
            if (host, path, folder) in self._at:
                return folder, self._at[host, path, folder]
        return self._below.get(key)


def _folders(branch: str) -> Iterator[str]:
    parts = branch.split("/")
    return ("/".join(parts[:number]) for number in range(1, len(parts)))


def _collision(where: Location, branch: str, other: str, its_place: Location) -> Problem:
    free = branch.replace("/", "-") if "/" in branch else f"{branch}-{other.rpartition('/')[2]}"
    return Problem(
        where,
        f"git can't have the branch {branch} beside {other}, the branch of {OTHER}: one would be a folder "
        f"of the other; write a name such as {free}",
        its_place,
    )


MOST_WARNED = 10
"""Environments that are named one by one by each kind of warning; the rest are counted."""

SANDBOX = "master"
"""The branch of Studio's sandbox, which each publish pulls into the published repository."""


def site_warnings(
    sites: Mapping[str, SiteSection], hosts: Mapping[str, HostSection], *, asked: bool
) -> Iterator[str]:
    """Yield what is valid but risky; `asked` tells whether Studio is asked if it is publishing."""
    followed, blind, unmarked, sandboxes = [], [], [], []
    for site, section in sites.items():
        git = hosts[section.repository.host].access is Access.GIT
        for name, environment in section.environments.items():
            place = ("sites", site, "environments", name)
            if not environment.carries(section.repository):
                continue
            if environment.follow:
                followed.append((*place, "follow"))
            if git:
                blind.append(place)
            elif not asked:
                unmarked.append(place)
            if any(leg.own and leg.branch == SANDBOX for leg in section.environment(site, name).legs):
                sandboxes.append(place)
    yield from _each(followed, "each publish to live removes the items that are staged for review there")
    yield from _each(
        blind,
        "its host runs git's own services only, so sync.quiet can't be kept, and a checked-out branch is "
        "refused",
    )
    yield from _each(
        unmarked,
        "a sync can lose what Studio 5 publishes here: a large publish can pause for longer than sync.quiet, "
        "and nothing in the repository shows it; give studio.token, or ignore this if your Studio is older "
        "than 5",
    )
    yield from _each(
        sandboxes,
        f"{SANDBOX} is the branch from which Studio takes what it publishes (repo.sandbox.branch): a sync "
        "would put live's content into later publishes; write another branch, or ignore this if Studio's has "
        "another name",
    )


def _each(places: Sequence[Location], text: str) -> Iterator[str]:
    yield from (f"{shown(place)}: {text}" for place in places[:MOST_WARNED])
    if len(places) > MOST_WARNED:
        yield f"sites, and {len(places) - MOST_WARNED} more environments: {text}"
