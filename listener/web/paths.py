"""Paths, as they may be shown."""

import re

from listener.journal import REDACTED

HOOKS = "/hooks/"

_BEHIND_A_HOOK = re.compile(r"(/hooks(?:/|%2F)+[^/%]*(?:/|%)).+", re.DOTALL | re.IGNORECASE)


def shown_path(path: str) -> str:
    """Return a path as the log may show it: behind a hook's name stands a secret, or nearly one."""
    return _BEHIND_A_HOOK.sub(rf"\g<1>{REDACTED}", path)
