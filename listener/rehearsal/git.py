"""The git command line, the same on every machine: no configuration of a user or system, fixed names."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    # git before 2.32 ignores GIT_CONFIG_GLOBAL, and finds the user's configuration by these two.
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
    "GIT_AUTHOR_NAME": "Studio",
    "GIT_AUTHOR_EMAIL": "studio@example.com",
    "GIT_COMMITTER_NAME": "Studio",
    "GIT_COMMITTER_EMAIL": "studio@example.com",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}


class GitError(Exception):
    """A git command failed."""


def git(folder: Path, *arguments: str, stdin: bytes | None = None, date: int | None = None) -> str:
    """Run git in a folder and return its output without the last newline; raise `GitError`.

    Commits and reflogs get `date` (Unix seconds) instead of the present time.
    """
    done = subprocess.run(  # noqa: S603 (the arguments are this package's own)
        ["git", *arguments],  # noqa: S607 (whichever git the PATH has)
        cwd=folder,
        env=_environment(date),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise GitError(f"git {' '.join(arguments)}: {said}")
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def _environment(date: int | None) -> Mapping[str, str]:
    """Return git's environment, without inherited GIT_ variables: a git hook's name another repository."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    dates = {} if date is None else dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{date} +0000")
    return {**inherited, **ENVIRONMENT, **dates}
