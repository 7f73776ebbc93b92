"""What one part of a configuration demands of another.

The rules look at the plain tree, and skip what has the wrong shape: so everything that is wrong is told at
once, and nothing twice.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from listener.config.hooks import broken_hook
from listener.config.model import FOLLOW_CHOICE
from listener.config.modes import WHY, written_by_others
from listener.config.names import branch_fault, plain_path
from listener.config.problems import Location, Problem, exposed, nearest, shown
from listener.config.references import Resolution, Surroundings, find
from listener.config.tls import broken_tls
from listener.sites import PLACEHOLDER, Access, RepositoryAddress, Site, SitePattern

STUDIO_TOKENS = ("token", "management_token")

_TOKEN = re.compile(r"[!-~]{1,8192}")
"""Printable ASCII: it stands in a header, or in a URL."""


def broken(resolution: Resolution, surroundings: Surroundings) -> Iterator[Problem]:
    """Return every rule that a resolved configuration breaks."""
    tree = resolution.tree
    for pattern in ("sites.*.repository.host", "sites.*.environments.*.repositories.*.host", "hosts.*.via"):
        yield from _known(tree, "host", "hosts", pattern)
    yield from _detours(tree)
    for pattern in ("hooks.*.repositories.*", "hooks.*.site", "tokens.*.sites.*"):
        yield from _known_site(tree, pattern)
    yield from _known(tree, "environment", "sites.*.environments", "hooks.*.environments.*")
    yield from _known_site(tree, "hooks.*.sites.*", patterns=True)
    yield from _repositories(tree)
    yield from _placeholders(tree)
    yield from _environments(tree)
    for location, hook in find(tree, "hooks.*"):
        if isinstance(hook, dict):
            yield from broken_hook(location, hook, resolution)
    for location, token in find(tree, "tokens.*"):
        if isinstance(token, dict):
            yield from _token(location, token)
    yield from _studio(resolution)
    for key in ("name", "sha256"):
        yield from _distinct(tree, f"tokens.*.{key}")
    yield from _ssh_files(resolution, surroundings)
    yield from broken_tls(resolution, surroundings)


def _known(tree: Any, noun: str, section: str, pattern: str) -> Iterator[Problem]:
    known = [location[-1] for location, _ in find(tree, f"{section}.*")]
    for location, value in find(tree, pattern):
        if isinstance(value, str) and value not in known:
            hint = nearest(value, [str(name) for name in known])
            yield Problem(location, f"names no configured {noun}; {hint}")


def _known_site(tree: Any, place: str, *, patterns: bool = False) -> Iterator[Problem]:
    """Yield what names no site: neither a configured one, nor one that a pattern may stand for."""
    sites = [str(location[-1]) for location, _ in find(tree, "sites.*")]
    for location, value in find(tree, place):
        if not isinstance(value, str) or (value in sites and (patterns or "*" not in value)):
            continue
        if PLACEHOLDER in value and place == "hooks.*.repositories.*":
            continue
        if not any("*" in text and SitePattern(text, _NOWHERE).matches(value) for text in sites):
            known = sites if patterns else [each for each in sites if "*" not in each]
            yield Problem(location, f"names no configured site; {nearest(value, known)}")


_NOWHERE = Site("", RepositoryAddress("", ""), "", {})


def _placeholders(tree: Any) -> Iterator[Problem]:
    """Yield the paths that do not tell the sites of a pattern apart, or have no pattern to tell apart."""
    git = {location[1] for location, access in find(tree, "hosts.*.access") if access == Access.GIT}
    for place in ("sites.*.repository", "sites.*.environments.*.repositories.*"):
        for location, repository in find(tree, place):
            path = repository.get("path") if isinstance(repository, dict) else None
            if not isinstance(path, str):
                continue
            wanted = int("*" in str(location[1]))
            if path.count(PLACEHOLDER) != wanted:
                text = "must hold {site} once" if wanted else "holds {site}, which only sites by pattern have"
                yield Problem((*location, "path"), f"{text}; write one such as {_PATHS[wanted]}")
            if wanted and repository.get("host") in git:
                yield Problem(
                    (*location, "host"),
                    "has access: git, and sites by pattern need a host with access: sh or restricted",
                )


_PATHS = ("/srv/sites/mysite/published", "/srv/sites/{site}/published")


def _detours(tree: Any) -> Iterator[Problem]:
    """Yield the hosts that are reached through themselves, at however many removes."""
    via = {location[1]: value for location, value in find(tree, "hosts.*.via")}
    for host in via:
        seen, at = {host}, via.get(host)
        while isinstance(at, str) and at not in seen:
            seen.add(at)
            at = via.get(at)
        if at == host:
            yield Problem(
                ("hosts", host, "via"), "leads back to the host itself; remove one via of the circle"
            )


def _distinct(tree: Any, pattern: str) -> Iterator[Problem]:
    first: dict[str, Location] = {}
    for location, value in find(tree, pattern):
        if isinstance(value, str) and first.setdefault(value, location) != location:
            yield Problem(location, f"is the same as {shown(first[value])}; each token needs its own")


def _repositories(tree: Any) -> Iterator[Problem]:
    first: dict[tuple[str, str], Location] = {}
    for location, repository in find(tree, "sites.*.repository"):
        if not isinstance(repository, dict) or "*" in str(location[1]):
            continue
        host, path = repository.get("host"), repository.get("path")
        if not isinstance(host, str) or not isinstance(path, str):
            continue
        if first.setdefault((host, plain_path(path)), location) != location:
            other = shown(first[host, plain_path(path)])
            yield Problem(
                location, f"is the same as {other}; each site has a published repository of its own"
            )


def _environments(tree: Any) -> Iterator[Problem]:
    taken = _Branches()
    for location, site in find(tree, "sites.*"):
        if isinstance(site, dict):
            # Which sites a pattern has is not known here: it is compared with itself alone.
            others = _Branches() if "*" in str(location[-1]) else taken
            for key in _carried(site.get("repository"), site.get("live", "live")):
                others.take(key, (*location, "live"))
            for at, environment in find(site, "environments.*"):
                if isinstance(environment, dict):
                    yield from _environment((*location, *at), site, environment, others)


def _environment(
    location: Location,
    site: dict[str, Any],
    environment: dict[str, Any],
    taken: "_Branches",
) -> Iterator[Problem]:
    """Yield what is wrong with an environment; `taken` are the branches that others have."""
    name, given = str(location[-1]), isinstance(environment.get("branch"), str)
    branch = environment["branch"] if given else name
    place = (*location, "branch") if given else location
    if name == "live":
        yield Problem(place, "live itself is never an environment; remove it")
        return
    if not given and (fault := branch_fault(name)):
        yield Problem(place, f"{fault}, or set the environment's branch")
        return
    own = list(_carried(site.get("repository"), branch))
    carriers = [
        (at, key)
        for at, each in find(environment, "repositories.*")
        if isinstance(each, dict)
        for key in _carried(each, each.get("branch", branch))
    ]
    if environment.get("follow") is None and (not carriers or _beside(own, carriers)):
        yield Problem((*location, "follow"), f"is missing: {FOLLOW_CHOICE}")
    seen: dict[tuple[str, str], tuple[Location, str]] = {}
    for at, (*repository, its_branch) in carriers:
        first_at, first_branch = seen.setdefault((repository[0], repository[1]), (at, its_branch))
        if first_branch != its_branch:
            yield Problem(
                (*location, *at),
                f"is the same repository as {shown((*location, *first_at))}; make another environment of it",
            )
    for at, key in carriers or [((), key) for key in own]:
        where = (*location, *at) if at else place
        first = taken.take(key, where)
        if first != where and first[-1] == "live" and len(first) == len(("sites", "site", "live")):
            yield Problem(where, "has the branch that it would follow; name the environment's own branch")
        elif first != where:
            yield Problem(where, f"has the same branch as {shown(first)}; each has its own")
        elif beside := taken.beside(key):
            yield Problem(where, _collision(key[-1], *beside))


class _Branches:
    """The branches of repositories that are taken, and where the configuration says so."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, str, str], Location] = {}
        self._below: dict[tuple[str, str, str], tuple[str, Location]] = {}
        """By each folder of branches, one that lies in it."""

    def take(self, key: tuple[str, str, str], where: Location) -> Location:
        """Take a branch (host, path, name), and return where it was taken first."""
        host, path, branch = key
        for folder in _folders(branch):
            self._below.setdefault((host, path, folder), (branch, where))
        return self._at.setdefault(key, where)

    def beside(self, key: tuple[str, str, str]) -> tuple[str, Location] | None:
        """Return a branch that git can't have beside this one, for one is the other's folder."""
        host, path, branch = key
        for folder in _folders(branch):
            if (host, path, folder) in self._at:
                return folder, self._at[host, path, folder]
        return self._below.get(key)


def _folders(branch: str) -> Iterator[str]:
    parts = branch.split("/")
    return ("/".join(parts[:number]) for number in range(1, len(parts)))


def _collision(branch: str, other: str, where: Location) -> str:
    return (
        f"git can't have the branch {branch} beside {other}, which is that of {shown(where)}: "
        "one would be a folder of the other; write a name such as "
        f"{branch.replace('/', '-') if '/' in branch else branch + '-' + other.rpartition('/')[2]}"
    )


def _carried(repository: Any, branch: Any) -> Iterator[tuple[str, str, str]]:
    """Yield host, path and branch, if all of them can be told."""
    if isinstance(repository, dict) and isinstance(branch, str):
        host, path = repository.get("host"), repository.get("path")
        if isinstance(host, str) and isinstance(path, str):
            yield host, plain_path(path), branch


def _beside(own: list[tuple[str, str, str]], carriers: list[tuple[Location, tuple[str, str, str]]]) -> bool:
    """Return whether one of the carriers is live's own repository."""
    return any(key[:2] == mine[:2] for mine in own for _, key in carriers)


def _token(location: Location, token: dict[str, Any]) -> Iterator[Problem]:
    place = (*location, "sites")
    if token.get("role") == "member" and not token.get("sites"):
        yield Problem(place, "is missing: write the list of sites that this member may sync")
    if token.get("role") == "admin" and token.get("sites"):
        yield Problem(place, "has no meaning for an admin, who covers every site; remove it or write member")


def _studio(resolution: Resolution) -> Iterator[Problem]:
    for location, studio in find(resolution.tree, "studio"):
        if studio is None:
            yield Problem(location, "is empty; write a map of url and what it is asked for, or remove it")
        if not isinstance(studio, dict):
            continue
        given = [key for key in STUDIO_TOKENS if key in studio]
        if not given and not studio.get("callers"):
            yield Problem(location, f"is asked for nothing; write {', '.join(STUDIO_TOKENS)} or callers")
        for key in given:
            yield from _studio_token((*location, key), studio[key], resolution)


def _studio_token(place: Location, token: Any, resolution: Resolution) -> Iterator[Problem]:
    if place in resolution.exposed:
        yield exposed(place, resolution.exposed[place])
    if token is None:
        yield Problem(place, "is empty; write the token, or remove the setting")
    if isinstance(token, str) and place not in resolution.unresolved and not _TOKEN.fullmatch(token):
        yield Problem(place, "is no token; write it on one line, without spaces, as Studio shows it")


def _ssh_files(resolution: Resolution, surroundings: Surroundings) -> Iterator[Problem]:
    section = resolution.tree.get("ssh")
    if isinstance(section, dict) and not section.get("identity") and not section.get("agent"):
        yield Problem(
            ("ssh", "identity"),
            "is missing: the path of the private key to log in with; or write agent, the path of the socket "
            "of an ssh agent that holds one",
        )
    for location, text in find(resolution.tree, "ssh.*"):
        if isinstance(text, str) and location not in resolution.unresolved:
            yield from _ssh_file(location, Path(text), surroundings)


def _ssh_file(location: Location, path: Path, surroundings: Surroundings) -> Iterator[Problem]:
    key = str(location[-1])
    if key not in _SSH_FILES:
        return
    what, kind, needed, remedy = _SSH_FILES[key]
    try:
        mode = path.stat().st_mode
        usable = kind(mode)
    except PermissionError:
        usable, remedy = False, "let the listener's user enter its folder"
    except (OSError, ValueError):
        usable = False
    if usable and not os.access(path, needed):
        usable, remedy = False, "let the listener's user own and read it"
    if not usable:
        # The path is not shown: somebody may have put the key itself here.
        yield Problem(location, f"is not the path of {what}; {remedy}")
    elif key == "identity" and surroundings.exposed(path, mode):
        yield exposed(location, path)
    elif key in WHY and not surroundings.handed_over(path):
        yield from written_by_others(location, path, mode, WHY[key])


_SSH_FILES: Mapping[str, tuple[str, Callable[[int], bool], int, str]] = {
    "known_hosts": (
        "a file that can be read",
        stat.S_ISREG,
        os.R_OK,
        "make it with ssh-keyscan, and verify each key with its host's administrator",
    ),
    "identity": (
        "a file that can be read",
        stat.S_ISREG,
        os.R_OK,
        "make a key with ssh-keygen -t ed25519 -N ''",
    ),
    "agent": (
        "a socket that can be used",
        stat.S_ISSOCK,
        os.W_OK,
        "start an agent as the listener's user, such as ssh-agent -a with that path",
    ),
    "config": (
        "a file that can be read",
        stat.S_ISREG,
        os.R_OK,
        "write one as OpenSSH has it, or remove the setting",
    ),
}
"""What must be at each path: in words, as a file's kind, what must be allowed, and what to do."""
