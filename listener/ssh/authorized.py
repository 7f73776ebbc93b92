"""The line of authorized_keys that binds a key to what the listener needs on a host, and to nothing else."""

import shlex
from collections.abc import Iterable

from listener.errors import ConfigurationError
from listener.sites import Access, Host, RepositoryAddress, Site

GIT_SHELL = 'git-shell -c "$SSH_ORIGINAL_COMMAND"'


def line(host: Host, sites: Iterable[Site], public: str, *, script: str, origin: str = "") -> str:
    """Return the line for a key's public half; `origin` is the addresses that it may log in from, if not all.

    Raise `ConfigurationError` where one key can't have what the sites of the host need.
    """
    command = GIT_SHELL if host.access is Access.GIT else shlex.join(("exec", script, *_bounds(host, sites)))
    options = ["restrict", *([f"from={_quoted(origin)}"] if origin else []), f"command={_quoted(command)}"]
    return f"{','.join(options)} {public}"


def _quoted(text: str) -> str:
    """Return an option's value; sshd undoes the quote's backslash and no other (sshd(8))."""
    return '"' + text.replace('"', '\\"') + '"'


def _bounds(host: Host, sites: Iterable[Site]) -> list[str]:
    """Return the arguments of the gate: the branches to move, those never to, and the folders."""
    moved: set[str] = set()
    kept: set[str] = set()
    folders: set[str] = set()
    for site in sites:
        if site.repository.host == host.name:
            kept.add(site.live)
            folders.add(_folder(site.repository))
        legs = (leg for each in site.environments.values() for leg in each.legs)
        for leg in legs:
            if leg.repository.host == host.name:
                moved.add(leg.branch)
                folders.add(_folder(leg.repository))
    if not folders:
        raise ConfigurationError(
            f"No site has a repository on {host.name}.",
            remedy="configure one, so that its key can be bound to it",
        )
    if moved & kept:
        raise ConfigurationError(
            f"On {host.name}, {', '.join(sorted(moved & kept))} is live here and to be moved there.",
            remedy="name the host twice in hosts, with a user of its own for each, or write the line by hand",
        )
    words = [word for branch in sorted(moved) for word in ("--branch", branch)]
    words += [word for branch in sorted(kept) for word in ("--protect", branch)]
    return words + [each for each in sorted(folders) if not any(_within(each, other) for other in folders)]


def _folder(address: RepositoryAddress) -> str:
    """Return the folder that a key needs: the repository's own, or that of all the sites of a pattern."""
    return address.root or address.path


def _within(folder: str, other: str) -> bool:
    return folder != other and folder.startswith(other.rstrip("/") + "/")
