"""Git's own services on a host (`git-upload-pack`, `git-receive-pack`), joined to the git of this machine.

A session of the warm connection is joined to a socket whose other end git inherits: `git fetch fd::7` then
speaks to the host over our connection, with its host keys, jump hosts and limits; no ssh client is started.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import asyncssh

from listener.errors import (
    ConnectionLostError,
    GitUnavailableError,
    NotARepositoryError,
    ShellUnavailableError,
    SyncError,
    WrongOwnerError,
)
from listener.ssh.shell import begun, cause_of, refused_by_gate

FETCH = "git-upload-pack"
PUSH = "git-receive-pack"

STDERR_KEPT = 4096
"""Bytes of what a service says on standard error that are kept, from its beginning."""

ENDING = 5.0
"""Seconds that a service may take to end once git here has ended; then its channel is closed."""


class _Far(asyncssh.SSHClientSession[bytes]):
    """The session on the host: what comes from there goes to the socket, and how it ends is kept."""

    def __init__(self) -> None:
        self.near: asyncio.Transport | None = None
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.status: int | None = None
        self.said = bytearray()
        self.ended = asyncio.Event()
        self.on_ended: Callable[[], object] = lambda: None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self.said += data[: STDERR_KEPT - len(self.said)]
        elif self.near is not None:
            self.near.write(data)

    def eof_received(self) -> bool:
        if self.near is not None and not self.near.is_closing():
            self.near.write_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.status = KILLED

    def pause_writing(self) -> None:
        if self.near is not None and not self.near.is_closing():
            self.near.pause_reading()

    def resume_writing(self) -> None:
        if self.near is not None and not self.near.is_closing():
            self.near.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self.on_ended()
        if self.near is not None and not self.near.is_closing():
            # Git learns of it as of any other end, and what it still says goes nowhere. Were the socket
            # closed over words that are not read yet, git's helper would fail on one side and wait for
            # ever on the other.
            self.near.resume_reading()
            self.near.write_eof()


class _Near(asyncio.Protocol):
    """Our end of the socket that git has the other end of: what comes from git goes to the host."""

    def __init__(self, far: _Far) -> None:
        self._far = far

    @property
    def _channel(self) -> "asyncssh.SSHClientChannel[bytes] | None":
        """The channel, for as long as it takes anything."""
        channel = self._far.channel
        return None if channel is None or channel.is_closing() else channel

    def data_received(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data)

    def eof_received(self) -> bool:
        if self._channel is not None:
            self._channel.write_eof()
        return True

    def pause_writing(self) -> None:
        if self._far.channel is not None:
            self._far.channel.pause_reading()

    def resume_writing(self) -> None:
        # Also of a channel that is closing: what has arrived already is only given out when it is asked for.
        if self._far.channel is not None:
            self._far.channel.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()


@dataclass(slots=True)
class Service:
    """One running service, to be spoken to by one git process."""

    name: str
    _theirs: socket.socket = field(repr=False)
    _far: _Far = field(repr=False)

    @property
    def url(self) -> str:
        """What stands in git's command line for the remote repository."""
        return f"fd::{self.descriptor}"

    @property
    def descriptor(self) -> int:
        """What git inherits."""
        return self._theirs.fileno()

    def handed_over(self) -> None:
        """Close this process's copy: git has its own, and its end must be the end."""
        self._theirs.close()

    async def failure(self) -> SyncError | None:
        """Return what went wrong at the other end, once git here has failed; None if that can't be told."""
        self.handed_over()
        try:
            async with asyncio.timeout(ENDING):
                await self._far.ended.wait()
        except TimeoutError:
            return None  # It goes on, and nobody knows for how long: git here has said what is wrong.
        said = self._far.said.decode("utf-8", "replace").strip()
        if self._far.status is None:
            return ConnectionLostError(said[-300:] or f"The connection was lost while {self.name} ran.")
        return _told(self.name, self._far.status, said)

    @property
    def goes_on(self) -> bool:
        """Whether it is a push that the host has not ended yet."""
        return self.name == PUSH and not self._far.ended.is_set()

    def when_ended(self, call: Callable[[], object]) -> None:
        """Call once it has ended."""
        self._far.on_ended = call

    async def close(self) -> None:
        """Let the service end, and leave it behind if it does not."""
        self.handed_over()
        try:
            async with asyncio.timeout(ENDING):
                await self._far.ended.wait()
        except TimeoutError:
            if self.name != PUSH:
                self.abandon()
        finally:
            near, self._far.near = self._far.near, None
            if near is not None:
                near.close()

    def abandon(self) -> None:
        """Let the service know that nobody listens any more, without waiting for the other end.

        The channel of a push stays open for as long as the host holds it: it is the only sign that git is
        still there, in the middle of its ref transaction perhaps. Its answers are few, and are dropped.
        """
        if self._far.near is not None:
            self._far.near.abort()
        if self._far.channel is None:
            return
        if self.name == PUSH and not self._far.channel.is_closing():
            self._far.near = None
            self._far.channel.resume_reading()
            self._far.channel.write_eof()
        else:
            self._far.channel.abort()


def command_of(name: str, path: str) -> str:
    """Return the command that starts a service, quoted as git does: git-shell reads nothing else.

    A login shell that is tcsh would take an exclamation mark within quotes for an old command.
    """
    return f"{name} '" + re.sub(r"(['!])", r"'\\\1'", path) + "'"


@contextlib.asynccontextmanager
async def opened(connection: asyncssh.SSHClientConnection, name: str, path: str) -> AsyncIterator[Service]:
    """Start a service for the repository at `path` and lend it; raise what asyncssh raises."""
    ours, theirs = socket.socketpair()
    far = _Far()
    try:
        far.near, _ = await asyncio.get_running_loop().create_connection(lambda: _Near(far), sock=ours)
        await begun(connection, far, command_of(name, path))
    except BaseException:
        theirs.close()
        ours.close() if far.near is None else far.near.abort()
        raise
    service = Service(name, theirs, far)
    try:
        yield service
    except BaseException:
        # Whoever is cancelled or out of time has ended git: the service notices at its next read.
        service.abandon()
        raise
    finally:
        await asyncio.shield(service.close())


_CAUSES: tuple[tuple[str, type[SyncError]], ...] = (
    (r"dubious ownership", WrongOwnerError),
    (r"does not appear to be a git repository|not a git repository", NotARepositoryError),
    (r"git-(upload|receive)-pack: (command )?not found|git: not found", GitUnavailableError),
)

COMMAND_NOT_FOUND = 127

KILLED = -1
"""The status of a service that a signal ended."""

REFUSING = frozenset({1, 126})
"""With these an account's login program refuses a command; git itself fails with 128."""


def _told(name: str, status: int, said: str) -> SyncError | None:
    """Return the error that a service's last words stand for, if it failed by itself."""
    refused = refused_by_gate(said)
    if refused is not None:
        return refused
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
