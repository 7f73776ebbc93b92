"""Git's own services on a host (`git-upload-pack`, `git-receive-pack`), joined to the git of this machine.

A session of the warm connection is joined to a socket, and git inherits the other end of the socket. So
`git fetch fd::7` uses our connection, with its host keys, jump hosts and limits, and starts no ssh client.
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
from listener.ssh.channel import start_command
from listener.ssh.remote_errors import cause_of, gate_error

FETCH = "git-upload-pack"
PUSH = "git-receive-pack"

MAX_STDERR = 4096
"""Bytes of a service's standard error that are kept, from its beginning."""

ENDING = 5.0
"""Seconds that a service may take to end after git here has ended. Then its channel is closed."""


class _RemoteSession(asyncssh.SSHClientSession[bytes]):
    """The session on the host: passes its output to the socket, and remembers how it ended."""

    def __init__(self) -> None:
        self.git_socket: asyncio.Transport | None = None
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.status: int | None = None
        self.said = bytearray()
        self.ended = asyncio.Event()
        self.on_ended: Callable[[], object] = lambda: None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self.said += data[: MAX_STDERR - len(self.said)]
        elif self.git_socket is not None:
            self.git_socket.write(data)

    def eof_received(self) -> bool:
        if self.git_socket is not None and not self.git_socket.is_closing():
            self.git_socket.write_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.status = KILLED

    def pause_writing(self) -> None:
        if self.git_socket is not None and not self.git_socket.is_closing():
            self.git_socket.pause_reading()

    def resume_writing(self) -> None:
        if self.git_socket is not None and not self.git_socket.is_closing():
            self.git_socket.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self.on_ended()
        if self.git_socket is not None and not self.git_socket.is_closing():
            # Only our sending side is closed. Git sees a normal end of input, and its further output is read
            # and dropped. If the socket were closed while some of that is unread, git's helper would fail in
            # one direction and wait for ever in the other.
            self.git_socket.resume_reading()
            self.git_socket.write_eof()


class _GitSocket(asyncio.Protocol):
    """Our end of the socket: passes git's output to the host."""

    def __init__(self, remote: _RemoteSession) -> None:
        self._remote = remote
        self._full = False
        self._delivering = False

    @property
    def _channel(self) -> "asyncssh.SSHClientChannel[bytes] | None":
        """The channel, unless it is closing."""
        channel = self._remote.channel
        return None if channel is None or channel.is_closing() else channel

    def data_received(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data)

    def eof_received(self) -> bool:
        if self._channel is not None:
            self._channel.write_eof()
        return True

    def pause_writing(self) -> None:
        self._full = True
        self._pause_if_full()

    def resume_writing(self) -> None:
        # Even if the channel is closing: asyncssh delivers what has arrived only while reading is not paused.
        self._full = False
        if self._remote.channel is not None:
            self._delivering = True
            self._remote.channel.resume_reading()
            self._delivering = False
        self._pause_if_full()

    def _pause_if_full(self) -> None:
        """Pause the channel, but only after all packets that have arrived are delivered.

        For each packet that asyncssh delivers, the host may send a whole window more. If the channel were
        paused while packets wait, they would become more and more, without a limit.
        """
        if self._full and not self._delivering and self._remote.channel is not None:
            self._remote.channel.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()


@dataclass(slots=True)
class Service:
    """One running service, for one git process here."""

    name: str
    _git_end: socket.socket = field(repr=False)
    _remote: _RemoteSession = field(repr=False)

    @property
    def url(self) -> str:
        """The remote repository in git's command line."""
        return f"fd::{self.descriptor}"

    @property
    def descriptor(self) -> int:
        """The file descriptor that git inherits."""
        return self._git_end.fileno()

    def handed_over(self) -> None:
        """Close our copy of git's end. While there is one, the service can't notice that git has ended."""
        self._git_end.close()

    async def failure(self) -> SyncError | None:
        """Return the error at the other end after git here has failed; None if it is not known."""
        self.handed_over()
        try:
            async with asyncio.timeout(ENDING):
                await self._remote.ended.wait()
        except TimeoutError:
            return None  # It still runs. The message of git here must do.
        said = self._remote.said.decode("utf-8", "replace").strip()
        if self._remote.status is None:
            return ConnectionLostError(said[-300:] or f"The connection was lost while {self.name} ran.")
        return _error_of_service(self.name, self._remote.status, said)

    @property
    def goes_on(self) -> bool:
        """Whether it is a push whose process has not ended on the host."""
        return self.name == PUSH and not self._remote.ended.is_set()

    def when_ended(self, call: Callable[[], object]) -> None:
        """Call this function when it has ended."""
        self._remote.on_ended = call

    async def close(self) -> None:
        """Wait for the service to end; abandon it if it does not, unless it is a push."""
        self.handed_over()
        try:
            async with asyncio.timeout(ENDING):
                await self._remote.ended.wait()
        except TimeoutError:
            if self.name != PUSH:
                self.abandon()
        finally:
            git_socket, self._remote.git_socket = self._remote.git_socket, None
            if git_socket is not None:
                git_socket.close()

    def abandon(self) -> None:
        """Tell the service that nobody reads its output any more; do not wait for the other end.

        The channel of a push stays open until the host closes it: nothing else shows that git still runs
        there, perhaps in the middle of its ref transaction. Its few answers are dropped.
        """
        if self._remote.git_socket is not None:
            self._remote.git_socket.abort()
        if self._remote.channel is None:
            return
        if self.name == PUSH and not self._remote.channel.is_closing():
            self._remote.git_socket = None
            self._remote.channel.resume_reading()
            self._remote.channel.write_eof()
        else:
            self._remote.channel.abort()


def command_of(name: str, path: str) -> str:
    """Return the command that starts a service, quoted as git does it: git-shell accepts nothing else.

    tcsh, as a login shell, would replace an exclamation mark within quotes by an earlier command.
    """
    return f"{name} '" + re.sub(r"(['!])", r"'\\\1'", path) + "'"


@contextlib.asynccontextmanager
async def open_service(
    connection: asyncssh.SSHClientConnection, name: str, path: str
) -> AsyncIterator[Service]:
    """Start a service for the repository at `path` and lend it; raise what asyncssh raises."""
    ours, theirs = socket.socketpair()
    remote = _RemoteSession()
    try:
        remote.git_socket, _ = await asyncio.get_running_loop().create_connection(
            lambda: _GitSocket(remote), sock=ours
        )
        await start_command(connection, remote, command_of(name, path))
    except BaseException:
        theirs.close()
        ours.close() if remote.git_socket is None else remote.git_socket.abort()
        raise
    service = Service(name, theirs, remote)
    try:
        yield service
    except BaseException:
        # The caller was cancelled or out of time, and has ended git. The service notices at its next read.
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
"""The statuses of a login program that refuses a command. Git itself fails with 128."""


def _error_of_service(name: str, status: int, said: str) -> SyncError | None:
    """Return the error for a service's last output; None if the output does not explain it."""
    refused = gate_error(said)
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
