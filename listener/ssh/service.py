"""Git's own services on a host (`git-upload-pack`, `git-receive-pack`), joined to the git of this machine.

The session of the warm connection ends in two pipes, whose other ends git inherits: `git fetch fd::7,8` then
speaks to the host over our connection, with its host keys, jump hosts and limits; no ssh client is started.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from listener.errors import (
    ConnectionLostError,
    GitUnavailableError,
    NotARepositoryError,
    ShellUnavailableError,
    SyncError,
    WrongOwnerError,
)
from listener.ssh.shell import cause_of

FETCH = "git-upload-pack"
PUSH = "git-receive-pack"

STDERR_KEPT = 4096
"""Bytes of what a service says on standard error that are kept, from its beginning."""

ENDING = 5.0
"""Seconds that a service may take to end once git here has ended; then its channel is closed."""

_LEAVING: "set[asyncio.Task[Any]]" = set()
"""What goes on after nobody waits for it any more: a start, and then the host's closing of the channel."""


@dataclass(slots=True)
class Service:
    """One running service, to be spoken to by one git process."""

    name: str
    reading: int
    """The descriptor from which git reads."""
    writing: int
    _process: "asyncssh.SSHClientProcess[bytes]" = field(repr=False)
    _said: bytearray = field(repr=False)
    _listening: "asyncio.Task[None]" = field(repr=False)
    _lent: bool = False

    @property
    def url(self) -> str:
        """What stands in git's command line for the remote repository."""
        return f"fd::{self.reading},{self.writing}"

    @property
    def descriptors(self) -> tuple[int, int]:
        """What git inherits."""
        return self.reading, self.writing

    def handed_over(self) -> None:
        """Close this process's copies: git has its own, and their end must be the end."""
        if not self._lent:
            self._lent = True
            os.close(self.reading)
            os.close(self.writing)

    async def failure(self) -> SyncError | None:
        """Return what went wrong at the other end, once git here has failed; None if that can't be told."""
        self.handed_over()
        try:
            async with asyncio.timeout(ENDING):
                await self._process.wait_closed()
                await self._listening
        except TimeoutError:
            return None  # It goes on, and nobody knows for how long: git here has said what is wrong.
        status = self._process.exit_status
        said = self._said.decode("utf-8", "replace").strip()
        if status is None:
            return ConnectionLostError(said[-300:] or f"The connection was lost while {self.name} ran.")
        return _told(self.name, status, said)

    async def close(self) -> None:
        """Let the service end, and close its channel if it does not."""
        self.handed_over()
        try:
            async with asyncio.timeout(ENDING):
                await self._process.wait_closed()
        except TimeoutError:
            _leave(self._process)
        finally:
            self._listening.cancel()


@contextlib.asynccontextmanager
async def opened(connection: asyncssh.SSHClientConnection, name: str, path: str) -> AsyncIterator[Service]:
    """Start a service for the repository at `path` and lend it; raise what asyncssh raises."""
    # git-shell wants the path in quotes, whatever is in it.
    command = f"{name} '" + path.replace("'", "'\\''") + "'"
    theirs_in, writing = os.pipe()
    reading, theirs_out = os.pipe()
    starting = asyncio.create_task(_started(connection, command, theirs_in, theirs_out))
    try:
        # Cut off halfway, it would leave a session that nobody closes, and pipes that are closed twice.
        process = await asyncio.shield(starting)
    except BaseException:
        os.close(reading)
        os.close(writing)
        _LEAVING.add(starting)
        starting.add_done_callback(_left)
        raise
    said = bytearray()
    listening = asyncio.create_task(_keep_beginning(process.stderr, said))
    service = Service(name, reading, writing, process, said, listening)
    try:
        yield service
    except BaseException:
        # Whoever is cancelled or out of time has ended git: the service notices at its next read.
        process.channel.abort()
        raise
    finally:
        await asyncio.shield(service.close())


async def _started(
    connection: asyncssh.SSHClientConnection, command: str, theirs_in: int, theirs_out: int
) -> "asyncssh.SSHClientProcess[bytes]":
    """Start a process that has the two descriptors; where none starts, they are closed."""
    try:
        return await connection.create_process(
            command, encoding=None, stdin=theirs_in, stdout=theirs_out, stderr=asyncssh.PIPE
        )
    except BaseException:
        for descriptor in (theirs_in, theirs_out):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        raise


def _left(starting: "asyncio.Task[asyncssh.SSHClientProcess[bytes]]") -> None:
    """Take a process down whose start nobody waited for."""
    _LEAVING.discard(starting)
    if not starting.cancelled() and starting.exception() is None:
        _leave(starting.result())


def _leave(process: "asyncssh.SSHClientProcess[bytes]") -> None:
    """Close a process's channel without waiting for the other end."""
    process.channel.abort()
    leaving = asyncio.create_task(process.wait_closed())
    _LEAVING.add(leaving)
    leaving.add_done_callback(_LEAVING.discard)


async def _keep_beginning(stream: "asyncssh.SSHReader[bytes]", kept: bytearray) -> None:
    """Read a stream to its end, and keep its beginning."""
    while chunk := await stream.read(STDERR_KEPT):
        kept += chunk[: STDERR_KEPT - len(kept)]


_CAUSES: tuple[tuple[str, type[SyncError]], ...] = (
    (r"dubious ownership", WrongOwnerError),
    (r"does not appear to be a git repository|not a git repository", NotARepositoryError),
    (r"git-(upload|receive)-pack: (command )?not found|git: not found", GitUnavailableError),
)

COMMAND_NOT_FOUND = 127

REFUSING = frozenset({1, 126})
"""With these an account's login program refuses a command; git itself fails with 128."""


def _told(name: str, status: int, said: str) -> SyncError | None:
    """Return the error that a service's last words stand for, if it failed by itself."""
    for words, cause in _CAUSES:
        if re.search(words, said):
            return cause(said[-300:])
    if status == COMMAND_NOT_FOUND:
        return GitUnavailableError(said[-300:] or f"{name} is not installed, or not on the PATH")
    known = cause_of(said)
    if known is not None:
        return known(said[-300:])
    if status in REFUSING or "unrecognized command" in said:
        return ShellUnavailableError(
            f"The account does not run {name}: {said[-300:] or f'exit status {status}'}",
            remedy="give the account git-shell or a POSIX shell",
        )
    return None
