"""Two ways to speak with a host: to `sh`, which is sent the script, and to the gate of a restricted key.

Behind a gate the script is on the host already. Once it runs, both ways are the same dialogue: a request is a
verb and its fields, by name, and all of it is text that the script reads and never runs.
"""

import hashlib
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

    def preamble(self, name: str) -> bytes:
        """Return what it is sent before it greets."""

    def opening(self, name: str) -> str:
        """Return the command that starts it; the name tells its process group from a stranger's."""

    def ending(self, group: int, name: str) -> tuple[str, bytes]:
        """Return the command that ends a shell's process group from another session, and what it reads."""

    def unopened(self, said: str, status: int | None) -> SyncError:
        """Return the error of an account that does not run it, by its last words and how it ended."""


IN_ITS_PLACE = {97: "csh or tcsh", 98: "zsh"}
"""The status with which another shell that was started in sh's place ends, and what it is."""

WHO_ANSWERS = """\
test "$?shell" = 1 && exit 97
ss_words='1 2'; set -- $ss_words; test $# = 2 || exit 98
"""
"""Ends a shell that is not like sh: csh tells of each variable whether it is set, zsh splits no words."""


class _Sent:
    """The script is sent to `sh` on its standard input: tcsh takes no new lines within a command's quotes."""

    def preamble(self, name: str) -> bytes:
        # What it starts bears the name too, and is known by it when the shell itself has ended already.
        named = f"SYNC_STAGING_SHELL={name}; export SYNC_STAGING_SHELL"
        return f"{WHO_ANSWERS}{named}\n{REMOTE}\nss_dialogue {name}\n".encode()

    def opening(self, name: str) -> str:
        return f"exec sh -s {name}"

    def ending(self, group: int, name: str) -> tuple[str, bytes]:
        # Its own name must not be the one that it looks for.
        return "exec sh -s", f"{END}ss_end {group} {name} </dev/null; exit\n".encode()

    def unopened(self, said: str, status: int | None) -> SyncError:
        other = "fish" if "In fish, please use" in said else IN_ITS_PLACE.get(status or 0, "")
        if not other:
            return ShellUnavailableError(f"The account does not run sh: {said or f'exit status {status}'}")
        return ShellUnavailableError(
            f"{other} answers in place of sh: a start-up file of the account, such as .bashrc, starts it",
            remedy="let the start-up file do that only for a person at a terminal: put the line behind "
            "case $- in *i*) … esac",
        )


class _Gated:
    """The script is installed on the host, behind its gate."""

    def preamble(self, name: str) -> bytes:
        return b""

    def opening(self, name: str) -> str:
        return f"sync-staging-dialogue {DIGEST} {name}"

    def ending(self, group: int, name: str) -> tuple[str, bytes]:
        return f"sync-staging-end {group} {name}", b""

    def unopened(self, said: str, status: int | None) -> SyncError:
        return ShellUnavailableError(
            f"The key is not bound to {INSTALLED_NAME}: {said or f'exit status {status}, without a word'}",
            remedy=f"install {INSTALLED_NAME} on the host and bind the key to it in authorized_keys "
            "(sync-staging host script, sync-staging host key); or set hosts.*.access to sh; if the key is "
            "bound to it, let no start-up file of the account, such as .bashrc, start another shell",
        )


_SENT = _Sent()
_GATED = _Gated()


def dialogue_of(access: Access) -> Dialogue:
    """Return how the shells of a host with this access are spoken with."""
    return _GATED if access is Access.RESTRICTED else _SENT
