"""Who may write to the files that the listener trusts: whoever can write to them can make it do anything.

Secrets, which others must not even read, are looked at where they are read (`references`).
"""

import stat
from collections.abc import Iterator
from pathlib import Path

from listener.config.problems import Location, Problem, quoted
from listener.config.references import Resolution, Surroundings, find

OTHERS = stat.S_IWGRP | stat.S_IWOTH

WHY = {
    "known_hosts": "which says what hosts to trust",
    "config": "which can name commands to run",
}
"""Why it matters who writes to these files of the section `ssh`."""


def written_by_others(location: Location, path: Path, mode: int, why: str) -> Iterator[Problem]:
    """Yield the problem of a file or folder to which others than its owner may write; `why` it matters."""
    if mode & OTHERS:
        yield Problem(
            location,
            f"others than its owner may write to {quoted(path)}, {why}; run chmod go-w {quoted(path)}",
        )


def broken_modes(path: Path, resolution: Resolution, surroundings: Surroundings) -> Iterator[Problem]:
    """Yield what others may write to: the configuration, the folders of trusted files, the cache."""
    yield from _looked_at((), path, "which is this configuration")
    folders: dict[Path, Location] = {path.absolute().parent: (), path.resolve().parent: ()}
    for location, text in find(resolution.tree, "ssh.known_hosts"):
        if isinstance(text, str) and not surroundings.handed_over(Path(text)):
            folders.setdefault(Path(text).parent, location)
    for folder, location in folders.items():
        if not _sticky(folder):
            yield from _looked_at(location, folder, "which lets them replace its files")
    for location, text in find(resolution.tree, "sync.cache"):
        if isinstance(text, str) and text.startswith("/"):
            yield from _looked_at(location, Path(text), "which is where commits are made")


def _looked_at(location: Location, path: Path, why: str) -> Iterator[Problem]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # What is not there, or can't be looked at, is told of where it is used.
    yield from written_by_others(location, path, mode, why)


def _sticky(folder: Path) -> bool:
    """Return whether nobody can take another's file away in a folder that is open to all, such as /tmp."""
    try:
        return bool(folder.stat().st_mode & stat.S_ISVTX)
    except (OSError, ValueError):
        return False
