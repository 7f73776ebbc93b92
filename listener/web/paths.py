"""Paths, as they may be shown."""

import re

from listener.redaction import REDACTED

HOOKS = "/hooks/"

_BEHIND_A_HOOK = re.compile(r"(/hooks(?:/|%2F)+[^/%]*(?:/|%)).+", re.DOTALL | re.IGNORECASE)


def hook_meant(path: str) -> str:
    """Return the hook that a path names with a slash too many; empty for any other path."""
    plain = re.sub("/+", "/", path).rstrip("/")
    name = plain.removeprefix(HOOKS).partition("/")[0]
    return name if plain != path and plain.startswith(HOOKS) and plain.count("/") <= _PARTS_MOST else ""


_PARTS_MOST = 3
"""Slashes of the longest path of a hook: /hooks/NAME/SECRET."""


def shown_path(path: str) -> str:
    """Return a path as the log may show it: behind a hook's name stands a secret, or nearly one."""
    return _BEHIND_A_HOOK.sub(rf"\g<1>{REDACTED}", path)
