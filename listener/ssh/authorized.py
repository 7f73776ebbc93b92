"""The line of authorized_keys that limits a key to what the listener needs on a host."""

import shlex
from collections.abc import Iterable

from listener.errors import ConfigurationError
from listener.sites import Access, Host, RepositoryAddress, Site

GIT_SHELL = 'git-shell -c "$SSH_ORIGINAL_COMMAND"'


def line(host: Host, sites: Iterable[Site], public: str, *, script: str, origin: str = "") -> str:
    """Return the line for a public key. `origin` lists the addresses that may log in; empty for all.

    Raise `ConfigurationError` if one key can't serve all sites of the host.
    """
    command = GIT_SHELL if host.access is Access.GIT else shlex.join(("exec", script, *_bounds(host, sites)))
    options = ["restrict", *([f"from={_quoted(origin)}"] if origin else []), f"command={_quoted(command)}"]
    return f"{','.join(options)} {public}"


def _quoted(text: str) -> str:
    """Return an option's value in quotes. sshd unescapes a quote and nothing else (sshd(8))."""
    return '"' + text.replace('"', '\\"') + '"'


def _bounds(host: Host, sites: Iterable[Site]) -> list[str]:
    """Return the arguments of the gate: branches that it may move, branches that it may not, and folders."""
    moved: set[str] = set()
    protected: set[str] = set()
    folders: set[str] = set()
    for site in sites:
        if site.repository.host == host.name:
            protected.add(site.live)
            folders.add(_folder(site.repository))
        legs = (leg for each in site.environments.values() for leg in each.legs)
        for leg in legs:
            if leg.repository.host == host.name:
                moved.add(leg.branch)
                folders.add(_folder(leg.repository))
    if not folders:
        raise ConfigurationError(
            f"No site has a repository on {host.name}.",
            remedy="configure a site there first: the key is limited to its repository",
        )
    if moved & protected:
        raise ConfigurationError(
            f"On {host.name}, {', '.join(sorted(moved & protected))} is the live branch of one site "
            "and an environment's branch of another.",
            remedy="configure the host twice in hosts, each with its own user, or write the line by hand",
        )
    words = [word for branch in sorted(moved) for word in ("--branch", branch)]
    words += [word for branch in sorted(protected) for word in ("--protect", branch)]
    return words + [each for each in sorted(folders) if not any(_is_inside(each, other) for other in folders)]


def _folder(address: RepositoryAddress) -> str:
    """Return the folder that a key needs: the repository's, or the root folder of a pattern's sites."""
    return address.root or address.path


def _is_inside(folder: str, other: str) -> bool:
    return folder != other and folder.startswith(other.rstrip("/") + "/")
