"""The dialogue with the script on a host: how it is started, and what a request looks like.

There are two ways to start it. With `access: sh` the script is sent to `sh`. With `access: restricted` it is
installed on the host behind its gate. The dialogue is the same: a request is a verb and named fields, text
that the script reads and never runs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Protocol

from listener.errors import ShellUnavailableError, SyncError
from listener.sites import Access


def _resource(name: str) -> str:
    return files("listener.ssh").joinpath(name).read_text(encoding="utf-8")


REMOTE, END, GATE = (_resource(name) for name in ("remote.sh", "end.sh", "gate.sh"))

DIGEST = hashlib.sha256((REMOTE + END + GATE).encode()).hexdigest()[:16]
"""The version of the installed script."""

INSTALLED_NAME = "sync-staging-shell"

INSTALLED = f"""\
#!/bin/sh
# {INSTALLED_NAME}: a key of sync-staging is bound to this script. `sync-staging host script` prints it.
#
# It has three parts: what is done in a repository, how a step is ended, and what the key may ask for.

key_digest={DIGEST}

{REMOTE}
{END}
{GATE}"""
"""The whole script, as it is installed on a host."""


Fields = Mapping[str, str]
"""The fields of one part of a request, by name. A field that is left out is empty."""


def request(token: str, verb: str, parts: Sequence[Fields], *, go: bool = True) -> bytes:
    """Return a request of one or more parts. The host closes its reply with the token.

    With `go`, a request to move is followed by `go`. Without, the caller sends `go_or_stop` later.
    """
    body = ",\n".join("".join(_field(*field) for field in part.items()) for part in parts)
    whole = f"{token} {verb}\n{body}.\n".encode("utf-8", "surrogateescape")
    return whole + go_or_stop(token, may_move=True) if go and verb == "apply" else whole


def go_or_stop(token: str, *, may_move: bool) -> bytes:
    """Return the line that a request to move waits for."""
    return f"{token} {'go' if may_move else 'stop'}\n".encode()


def _field(name: str, text: str) -> str:
    """Return a field as lines; nothing for an empty one."""
    return f"{name}={text}\n".replace("\n", "\n+", text.count("\n")) if text else ""


class Dialogue(Protocol):
    """How a shell on a host is started and ended. The shell greets with the name that it is given."""

    def preamble(self, name: str) -> bytes:
        """Return what the shell is sent before it greets."""

    def opening(self, name: str) -> str:
        """Return the command that starts the shell. The name identifies its process group."""

    def ending(self, group: int, name: str) -> tuple[str, bytes]:
        """Return the command that ends a shell's process group from another session, and its input."""

    def unopened(self, said: str, status: int | None) -> SyncError:
        """Return the error for an account that did not start the shell, from its output and exit status."""


OTHER_SHELLS = {97: "csh or tcsh", 98: "zsh"}
"""The exit statuses of `SHELL_CHECK`, and the shell that each stands for."""

SHELL_CHECK = """\
test "$?shell" = 1 && exit 97
ss_words='1 2'; set -- $ss_words; test $# = 2 || exit 98
"""
"""Ends a shell that does not behave like sh: csh has the variable `$?shell`, zsh does not split words."""


class _SentScript:
    """The script is sent to `sh` on its standard input: tcsh allows no new lines in quotes."""

    def preamble(self, name: str) -> bytes:
        # The processes that it starts get the name in their environment: `end.sh` must find them even if the
        # shell itself has ended.
        named = f"SYNC_STAGING_SHELL={name}; export SYNC_STAGING_SHELL"
        return f"{SHELL_CHECK}{named}\n{REMOTE}\nss_dialogue {name}\n".encode()

    def opening(self, name: str) -> str:
        return f"exec sh -s {name}"

    def ending(self, group: int, name: str) -> tuple[str, bytes]:
        # Its own command line must not contain the name that it searches for.
        return "exec sh -s", f"{END}ss_end {group} {name} </dev/null; exit\n".encode()

    def unopened(self, said: str, status: int | None) -> SyncError:
        other = "fish" if "In fish, please use" in said else OTHER_SHELLS.get(status or 0, "")
        if not other:
            return ShellUnavailableError(f"The account does not run sh: {said or f'exit status {status}'}")
        return ShellUnavailableError(
            f"{other} answers in place of sh: a start-up file of the account, such as .bashrc, starts it",
            remedy=f"start {other} only in interactive shells: in the start-up file, put the line inside "
            "case $- in *i*) … esac",
        )


class _InstalledScript:
    """The script is installed on the host, behind its gate."""

    def preamble(self, name: str) -> bytes:
        return b""

    def opening(self, name: str) -> str:
        return f"sync-staging-dialogue {DIGEST} {name}"

    def ending(self, group: int, name: str) -> tuple[str, bytes]:
        return f"sync-staging-end {group} {name}", b""

    def unopened(self, said: str, status: int | None) -> SyncError:
        return ShellUnavailableError(
            f"The key is not bound to {INSTALLED_NAME}: {said or f'exit status {status}, no output'}",
            remedy=f"install {INSTALLED_NAME} on the host and bind the key to it in authorized_keys "
            "(sync-staging host script, sync-staging host key); or set hosts.*.access to sh. If the key is "
            "bound to it, make sure that no start-up file of the account, such as .bashrc, starts another "
            "shell",
        )


_SENT_SCRIPT = _SentScript()
_INSTALLED_SCRIPT = _InstalledScript()


def dialogue_of(access: Access) -> Dialogue:
    """Return the dialogue with a host of this access."""
    return _INSTALLED_SCRIPT if access is Access.RESTRICTED else _SENT_SCRIPT
