"""Commands in sessions of a connection, and the reader of a shell's framed replies.

Both streams of a reply end with a line that starts with the request's random token. The reader collects what
arrives as it arrives (`data_received`). So an unread stream can't block the other one, no line is cut at the
end of a window, and a lost connection is an error instead of an empty reply.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import asyncssh

from listener.errors import ConnectionLostError, RemoteStepError
from listener.ssh.batch import SINGLE, Batch

MAX_REPLY = 16 << 20
"""Bytes of one reply, both streams together. A longer one is not read further."""

MAX_LAST_WORDS = 1000
"""Characters of the last output of a shell that has ended."""

MAX_STATUS_LINE = 16
"""Bytes of the line that ends a reply, after its token."""

LINGER = 1.0
"""Seconds for which the streams of a shell that has ended are still read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of the script to one request."""

    status: int
    out: str
    err: str


class ReplyReader(asyncssh.SSHClientSession[bytes]):
    """Collects both streams of a session until each has shown the token."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.ended = False
        self.closed = asyncio.Event()
        """Set when the channel is closed on both sides."""
        self.status: int | None = None
        self.interrupted = False
        """Whether the connection was lost, or a signal ended the shell."""
        self._token = b""
        self._batch = SINGLE
        self._complete: set[int] = set()
        """The streams that have shown the token."""
        self._reply: asyncio.Future[Reply] | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        """Keep the channel."""
        self._channel = chan

    def expect(self, token: str, batch: Batch = SINGLE) -> "asyncio.Future[Reply]":
        """Return the future reply to the request with this token."""
        self._batch = batch
        self.forget()
        self._complete.clear()
        self._token = b"\n" + token.encode()
        self._reply = asyncio.get_running_loop().create_future()
        if self.ended:
            self._fail()
        return self._reply

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Add to the reply; finish it when both streams have shown the token."""
        stream = self.err if datatype == asyncssh.EXTENDED_DATA_STDERR else self.out
        known = len(stream)
        stream += data
        if stream is self.out and self._batch.separator:
            self._batch.count_answers(stream, known)
        # The limit also holds while no reply is expected: a host that keeps sending must not fill our memory.
        if len(self.out) + len(self.err) > MAX_REPLY:
            self._stop(f"the host's reply is over {MAX_REPLY >> 20} MiB")
        elif self._reply is not None and not self._reply.done():
            if stream.find(self._token, max(0, known - len(self._token))) >= 0:
                self._complete.add(id(stream))
            if len(self._complete) == len((self.out, self.err)):
                self._finish(self._reply)

    def _finish(self, reply: "asyncio.Future[Reply]") -> None:
        out, _, status = self.out.partition(self._token + b" ")
        err, _, _ = self.err.partition(self._token)
        if re.fullmatch(rb"[0-9]{1,3}\n", status):
            reply.set_result(Reply(int(status), text_of(out), text_of(err)))
        elif b"\n" in status or len(status) > MAX_STATUS_LINE:
            self._stop("the host's reply does not end as our script ends it")

    def _stop(self, why: str) -> None:
        """Read no further: this is not our script, or not any more."""
        self.ended = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(RemoteStepError(why))
        else:
            self.forget()
        if self._channel is not None:
            self._channel.abort()

    def forget(self) -> None:
        """Drop the output so far."""
        self.out.clear()
        self.err.clear()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Note that a signal ended the shell."""
        self.interrupted = True
        self._close_soon()

    def exit_status_received(self, status: int) -> None:
        """Keep the status with which the shell ended."""
        self.status = status
        self._close_soon()

    def _close_soon(self) -> None:
        """Close the session soon: a process that the shell started may hold its streams open for ever."""
        asyncio.get_running_loop().call_later(LINGER, self._close)

    def _close(self) -> None:
        self.ended = True
        self._fail()
        if self._channel is not None:
            self._channel.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the expected reply: the channel or the whole connection is closed."""
        self.ended = True
        self.interrupted = self.interrupted or exc is not None
        self.closed.set()
        self._fail()

    def _fail(self) -> None:
        if self._reply is not None and not self._reply.done():
            said = (text_of(self.err) or text_of(self.out)).strip()[-MAX_LAST_WORDS:]
            self._reply.set_exception(
                ConnectionLostError(escaped(said) or "The shell on the host has ended.")
            )


async def run_command(
    connection: asyncssh.SSHClientConnection, command: str, stdin: bytes
) -> tuple[int | None, str]:
    """Run a command with this input; return its status and its output. Raise what asyncssh raises."""
    reader = ReplyReader()
    channel = await start_command(connection, reader, command, window=MAX_REPLY)
    try:
        channel.write(stdin)
        channel.write_eof()
        await reader.closed.wait()
    finally:
        channel.abort()
    return reader.status, escaped(text_of(reader.out))


async def start_command(
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
        # The host opens the session all the same. Left open, it would keep one of the host's slots.
        opening.add_done_callback(_abort_unwanted)
        raise
    return channel


def _abort_unwanted(
    opening: "asyncio.Task[tuple[asyncssh.SSHClientChannel[Any], asyncssh.SSHClientSession[Any]]]",
) -> None:
    """Close a channel that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()


def escaped(text: str) -> str:
    """Return text for an error, which is stored and sent on: bytes that are not UTF-8 are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def text_of(data: bytes | bytearray) -> str:
    """Return output as text from which the same bytes can be made again."""
    return data.decode("utf-8", "surrogateescape")
