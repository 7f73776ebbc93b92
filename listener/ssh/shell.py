"""A long-lived shell on a host that has our script, spoken to in frames.

Both streams of a reply end with a line that starts with the request's random token. The session collects
what arrives as it arrives (`data_received`), so that no unread stream can block the other, no line is cut at
a window's edge, and a lost connection is an error instead of an empty reply.
"""

import asyncio
import contextlib
import re
import secrets
from dataclasses import dataclass
from typing import Any

import asyncssh

from listener.errors import (
    ConnectionLostError,
    DiskFullError,
    ReadOnlyError,
    RefLockedError,
    RemoteStepError,
    SyncError,
)
from listener.ssh.dialogue import Dialogue, Fields, request
from listener.ssh.tour import NOWHERE, Tour

REPLY_LIMIT = 16 << 20
"""Bytes of one reply, both streams together, beyond which it is not read on."""

LAST_WORDS = 1000
"""Characters of what a shell that has ended said last."""

STATUS_MOST = 16
"""Bytes of the line that ends a reply, behind its token."""

MESSAGE_MOST = 500
"""Characters of what a host says that an error repeats."""

LINGERING = 1.0
"""Seconds for which the streams of a shell that has ended are still read."""

SILENCE = 1.5
"""Seconds of a new shell's silence after which it is told that no more input comes."""

CLOSING = 1.0
"""Seconds that an idle shell may take to end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a remote function answered."""

    status: int
    out: str
    err: str


class _Session(asyncssh.SSHClientSession[bytes]):
    """Collects both streams until each has shown the token."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.ended = False
        self.over = asyncio.Event()
        """Set when the channel is closed on both sides."""
        self.status: int | None = None
        self.cut = False
        """Whether it was ended from outside: by the loss of the connection, or by a signal."""
        self._token = b""
        self._tour = NOWHERE
        self._closed: set[int] = set()
        self._reply: asyncio.Future[Reply] | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        self._channel = chan

    def expect(self, token: str, tour: Tour = NOWHERE) -> "asyncio.Future[Reply]":
        """Return the future reply to the request that carries this token."""
        self._tour = tour
        self.out.clear()
        self.err.clear()
        self._closed.clear()
        self._token = b"\n" + token.encode()
        self._reply = asyncio.get_running_loop().create_future()
        if self.ended:
            self._fail()
        return self._reply

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        stream = self.err if datatype == asyncssh.EXTENDED_DATA_STDERR else self.out
        searched = max(0, len(stream) - len(self._token))
        known = len(stream)
        stream += data
        if stream is self.out and self._tour.mark:
            self._tour.look(stream, known)
        # What comes while nothing is asked is as bounded: a host that goes on talking fills no memory.
        if len(self.out) + len(self.err) > REPLY_LIMIT:
            self._refuse(f"the host's reply is over {REPLY_LIMIT >> 20} MiB")
        elif self._reply is not None and not self._reply.done():
            if self._token in stream[searched:]:
                self._closed.add(id(stream))
            if len(self._closed) == len((self.out, self.err)):
                self._complete(self._reply)

    def _complete(self, reply: "asyncio.Future[Reply]") -> None:
        out, _, status = self.out.partition(self._token + b" ")
        err, _, _ = self.err.partition(self._token)
        if re.fullmatch(rb"[0-9]{1,3}\n", status):
            reply.set_result(Reply(int(status), _text(out), _text(err)))
        elif b"\n" in status or len(status) > STATUS_MOST:
            self._refuse("the host's reply does not end as our script ends it")

    def _refuse(self, why: str) -> None:
        """Read no further: the shell is none of ours, or no longer."""
        self.ended = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(RemoteStepError(why))
        else:
            self.forget()
        if self._channel is not None:
            self._channel.abort()

    def forget(self) -> None:
        """Drop what was said: nobody asked, or has been told."""
        self.out.clear()
        self.err.clear()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.cut = True
        self._close_soon()

    def exit_status_received(self, status: int) -> None:
        self.status = status
        self._close_soon()

    def _close_soon(self) -> None:
        """End the session soon: what the shell has left behind may hold its streams open for ever."""
        asyncio.get_running_loop().call_later(LINGERING, self._close)

    def _close(self) -> None:
        self.ended = True
        self._fail()
        if self._channel is not None:
            self._channel.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.cut = self.cut or exc is not None
        self.over.set()
        self._fail()

    def _fail(self) -> None:
        if self._reply is not None and not self._reply.done():
            said = (_text(self.err) or _text(self.out)).strip()[-LAST_WORDS:]
            self._reply.set_exception(ConnectionLostError(_shown(said) or "The shell on the host has ended."))


_GROUP = re.compile(r"[1-9][0-9]{0,9}")


class Shell:
    """One loaded shell. It answers one request at a time."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        channel: "asyncssh.SSHClientChannel[bytes]",
        session: _Session,
        name: str,
        dialogue: Dialogue,
    ) -> None:
        self.connection = connection
        self._channel = channel
        self._session = session
        self._dialogue = dialogue
        self.name = name
        """Stands in the remote process's command line, so that its group can be told from a stranger's."""
        self.group = 0
        """The remote process group."""
        self.git = ""
        """What `git --version` says there."""
        self._last = False
        """Whether it was told that no more input comes."""
        self.left_behind = False
        """Whether its processes go on, though they were asked to end."""

    @classmethod
    async def open(
        cls, connection: asyncssh.SSHClientConnection, dialogue: Dialogue, *, patient: bool = False
    ) -> "Shell":
        """Open a channel and load the script; raise `ShellUnavailableError`, `GitUnavailableError`.

        Unless `patient`, what says nothing for `SILENCE` is told that no more input comes. A shell that has
        only been slow (its start-up files are) answers then, but is not usable any more.
        """
        name = f"sync-staging-{secrets.token_hex(8)}"
        session = _Session()
        # A gate greets at once.
        greeting = session.expect(name)
        try:
            channel = await begun(connection, session, dialogue.opening(name), window=REPLY_LIMIT)
        except BaseException:
            greeting.cancel()
            raise
        shell = cls(connection, channel, session, name, dialogue)
        try:
            await shell._greet(greeting, SILENCE if not patient else None)
        except BaseException:
            greeting.cancel()
            channel.abort()
            raise
        return shell

    async def _greet(self, greeting: "asyncio.Future[Reply]", silence: float | None) -> None:
        # Nothing more is sent before it greets: some shells would read that as a part of the script.
        try:
            self._write(self._dialogue.preamble(self.name))
            # A fish that a start-up file runs in sh's place reads to the end before it does anything.
            if not (await asyncio.wait([greeting], timeout=silence))[0]:
                self._channel.write_eof()
                self._last = True
            reply = await greeting
        except ConnectionLostError as error:
            if self._session.cut:
                raise
            raise refused_by_gate(error.message) or self._unopened(error.message) from error
        hello = reply.out.rpartition("hello ")[2].split(maxsplit=1)
        if reply.status != 0:
            raise refusal(reply)
        if len(hello) != 2 or not _GROUP.fullmatch(hello[0]):  # noqa: PLR2004 (it and git's version)
            raise self._unopened(_shown(reply.out or reply.err).strip()[-LAST_WORDS:])
        self.group, self.git = int(hello[0]), _shown(hello[1].strip())[:MESSAGE_MOST]

    def _unopened(self, said: str) -> SyncError:
        return self._dialogue.unopened(said, self._session.status)

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._last and not self._session.ended and not self._channel.is_closing()

    async def call(self, verb: str, *parts: Fields, tour: Tour = NOWHERE) -> Reply:
        """Send one request and return its reply; raise `ConnectionLostError` if none came back whole."""
        token = secrets.token_hex(16)
        reply = self._session.expect(token, tour)
        try:
            self._write(request(token, verb, parts))
            return await reply
        except BaseException:
            tour.heard = _text(self._session.out)
            raise
        finally:
            self._session.forget()

    def _write(self, data: bytes) -> None:
        try:
            self._channel.write(data)
        except (OSError, asyncssh.Error) as error:
            raise ConnectionLostError(str(error)) from error

    async def close(self) -> None:
        """Let an idle shell end, and wait until its session is the host's again."""
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(CLOSING):
                self._channel.write_eof()
                await self._session.over.wait()
        self._channel.abort()

    def abandon(self) -> None:
        """Close the channel without waiting for the other end."""
        self._channel.abort()


async def told(
    connection: asyncssh.SSHClientConnection, command: str, given: bytes
) -> tuple[int | None, str]:
    """Run a command that reads what it is given; return its status and its output.

    Raises what asyncssh raises.
    """
    session = _Session()
    channel = await begun(connection, session, command, window=REPLY_LIMIT)
    try:
        channel.write(given)
        channel.write_eof()
        await session.over.wait()
    finally:
        channel.abort()
    return session.status, _shown(_text(session.out))


async def begun(
    connection: asyncssh.SSHClientConnection,
    session: asyncssh.SSHClientSession[bytes],
    command: str,
    **options: Any,
) -> "asyncssh.SSHClientChannel[bytes]":
    """Start a command in a session and return its channel; raise what asyncssh raises."""
    opening = asyncio.create_task(
        connection.create_session(lambda: session, command, encoding=None, **options)
    )
    try:
        channel, _ = await asyncio.shield(opening)
    except BaseException:
        # The host opens it all the same: it must not stay open.
        opening.add_done_callback(_abandoned)
        raise
    return channel


def _abandoned(
    opening: "asyncio.Task[tuple[asyncssh.SSHClientChannel[Any], asyncssh.SSHClientSession[Any]]]",
) -> None:
    """Close a channel that nobody waited for."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()


def refusal(reply: Reply) -> SyncError:
    """Return the error that a failed reply stands for, in few of its words."""
    reply = Reply(reply.status, _shown(reply.out), _shown(reply.err))
    said = reply.err.strip()[-MESSAGE_MOST:]
    found = _REFUSAL.search(reply.out.strip())
    if found is None:
        return RemoteStepError(f"a step failed with status {reply.status}: {said}")
    code, text = found[1], found[2][:MESSAGE_MOST]
    error = _REFUSALS.get(code, RemoteStepError)
    if error is RemoteStepError:
        error = cause_of(said) or error
    return error(f"{text}: {said}" if said and not error.permanent else text)


def refused_by_gate(said: str) -> SyncError | None:
    """Return the error that the gate of a restricted key has told on standard error, if it has."""
    return refusal(Reply(1, said, "")) if _REFUSAL.search(said.strip()) else None


_REFUSAL = re.compile(r"^error ([a-z-]+) (.*)\Z", re.DOTALL | re.MULTILINE)


def cause_of(said: str) -> type[RemoteStepError] | None:
    """Return the error that git's and the shell's own words stand for, if they name a cause that has one."""
    return next((cause for words, cause in _CAUSES if re.search(words, said)), None)


_CAUSES: tuple[tuple[str, type[RemoteStepError]], ...] = (
    (r"No space left on device|Disk quota exceeded", DiskFullError),
    (r"Read-only file system|Permission denied|insufficient permission", ReadOnlyError),
    (r"\.lock': File exists", RefLockedError),
)
"""What git and the shell say of the causes that have an error of their own."""


def _refusals(kind: type[SyncError]) -> dict[str, type[SyncError]]:
    found = {kind.code: kind}
    for narrower in kind.__subclasses__():
        found |= _refusals(narrower)
    return found


_REFUSALS = _refusals(SyncError)


def _shown(text: str) -> str:
    """Return text for an error, which is stored and sent on: bytes that were no UTF-8 are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "surrogateescape")
