"""Two ways to speak with a host: to `sh`, which is sent the script, and to the gate of a restricted key.

Behind a gate the script is on the host already. Once it runs, both ways are the same dialogue: a request is a
verb and its fields, by name, and all of it is text that the script reads and never runs.
"""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Protocol

from listener.errors import ShellUnavailableError, SyncError
from listener.sites import Access


def _part(name: str) -> str:
    return files("listener.ssh").joinpath(name).read_text(encoding="utf-8")


REMOTE, END, GATE = (_part(name) for name in ("remote.sh", "end.sh", "gate.sh"))

DIGEST = hashlib.sha256((REMOTE + END + GATE).encode()).hexdigest()[:16]
"""Tells one version of the installed script from another."""

INSTALLED_NAME = "sync-staging-shell"

INSTALLED = f"""\
#!/bin/sh
# {INSTALLED_NAME}: what a key of sync-staging is bound to here; printed by `sync-staging host script`.
#
# Three parts: what is done in a repository, how it is ended, and, last, what the key may ask for.

key_digest={DIGEST}

{REMOTE}
{END}
{GATE}"""
"""The whole script, as it is installed on a host."""


Fields = Mapping[str, str]
"""What one part of a request says, by name; a field that is left out is empty."""


def request(token: str, verb: str, parts: Sequence[Fields]) -> bytes:
    """Return a request, whose reply is closed by the token: one part's fields, or those of several."""
    told = ",\n".join("".join(_field(*field) for field in part.items()) for part in parts)
    return f"{token} {verb}\n{told}.\n".encode("utf-8", "surrogateescape")


def _field(name: str, text: str) -> str:
    """Return a field; what is empty need not be told."""
    return f"{name}={text}\n".replace("\n", "\n+", text.count("\n")) if text else ""


class Dialogue(Protocol):
    """How a shell on a host is opened and ended. It greets by the name that it is given."""

    @property
    def preamble(self) -> bytes:
        """What it is sent before it greets."""

    def opening(self, name: str) -> str:
        """Return the command that starts it; the name tells its process group from a stranger's."""

    def ending(self, group: int, name: str) -> str:
        """Return the command that ends a shell's process group from another session."""

    def unopened(self, said: str) -> SyncError:
        """Return the error of an account that does not run it, by its last words."""


class _Sent:
    """The script is sent to `sh`."""

    preamble = f'{REMOTE}\nss_dialogue "$1"\n'.encode()

    def opening(self, name: str) -> str:
        return f"exec sh -s {name}"

    def ending(self, group: int, name: str) -> str:
        return shlex.join(("exec", "sh", "-c", f'{END}ss_end "$@"', "sh", str(group), name))

    def unopened(self, said: str) -> SyncError:
        return ShellUnavailableError(f"The account does not run sh: {said}")


class _Gated:
    """The script is installed on the host, behind its gate."""

    preamble = b""

    def opening(self, name: str) -> str:
        return f"sync-staging-dialogue {DIGEST} {name}"

    def ending(self, group: int, name: str) -> str:
        return f"sync-staging-end {group} {name}"

    def unopened(self, said: str) -> SyncError:
        return ShellUnavailableError(
            f"The key is not bound to {INSTALLED_NAME}: {said}",
            remedy=f"install {INSTALLED_NAME} on the host and bind the key to it in authorized_keys "
            "(sync-staging host script, sync-staging host key); or set hosts.*.access to sh",
        )


_SENT = _Sent()
_GATED = _Gated()


def dialogue_of(access: Access) -> Dialogue:
    """Return how the shells of a host with this access are spoken with."""
    return _GATED if access is Access.RESTRICTED else _SENT
