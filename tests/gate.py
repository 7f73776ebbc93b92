"""The gate of a restricted key: installed, and keys bound to it."""

import shlex
from pathlib import Path

from listener.ssh.dialogue import INSTALLED, INSTALLED_NAME


def install(folder: Path) -> Path:
    """Put the script where a host would have it; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INSTALLED_NAME
    path.write_text(INSTALLED)
    path.chmod(0o755)
    return path


def bound(script: Path, *words: str | Path, shell: str = "") -> str:
    """What stands before a key in authorized_keys to bind it to the script, run by `shell` if it is given."""
    command = shlex.join(("exec", *shell.split(), str(script), *map(str, words)))
    return f'restrict,command="{command}"'
