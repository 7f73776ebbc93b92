"""The sites that right entries describe."""

from collections.abc import Mapping

from listener.config.model import EnvironmentEntry, RepositoryEntry, SiteEntry
from listener.sites import PLACEHOLDER, Environment, RepositoryAddress, Site, SitePattern, Sites


def made_sites(entries: Mapping[str, SiteEntry]) -> Sites:
    """Return the sites, and the patterns of sites, that these entries describe."""
    return Sites.of(
        (_site(name, entry) for name, entry in entries.items() if "*" not in name),
        (SitePattern(name, _site(name, entry)) for name, entry in entries.items() if "*" in name),
    )


def _site(name: str, entry: SiteEntry) -> Site:
    repository = _address(entry.repository)
    environments = {
        key: _environment(name, key, value, repository, entry.live)
        for key, value in entry.environments.items()
    }
    return Site(name, repository, entry.live, environments)


def _address(entry: RepositoryEntry) -> RepositoryAddress:
    """Return an address; that of a pattern may not lead out of the folder that holds its sites."""
    before, found, _ = entry.path.partition(PLACEHOLDER)
    return RepositoryAddress(entry.host, entry.path, (before.rpartition("/")[0] or "/") if found else "")


def _environment(
    site: str, name: str, entry: EnvironmentEntry, repository: RepositoryAddress, live: str
) -> Environment:
    carriers = [(_address(each), each.branch or entry.branch or name) for each in entry.repositories]
    return Environment.of(
        site,
        name,
        repository,
        live,
        entry.policy,
        carriers or [(repository, entry.branch or name)],
        follow=True if entry.follow is None else entry.follow,
    )
