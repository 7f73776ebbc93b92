"""A long-lived shell on a host that has loaded our script and answers requests."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable

import asyncssh

from listener.errors import ConnectionLostError, SyncError
from listener.ssh.batch import SINGLE, Batch
from listener.ssh.channel import (
    MAX_LAST_WORDS,
    MAX_REPLY,
    Reply,
    ReplyReader,
    escaped,
    start_command,
    text_of,
)
from listener.ssh.dialogue import Dialogue, Fields, go_or_stop, request
from listener.ssh.remote_errors import MAX_MESSAGE, error_of, gate_error

SILENCE = 1.5
"""Seconds of silence after which a new shell's input is closed."""

CLOSE_LIMIT = 1.0
"""Seconds that an idle shell may take to end."""

_GROUP = re.compile(r"[1-9][0-9]{0,9}")


class Shell:
    """One loaded shell. It answers one request at a time."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        channel: "asyncssh.SSHClientChannel[bytes]",
        reader: ReplyReader,
        name: str,
        dialogue: Dialogue,
    ) -> None:
        self.connection = connection
        self._channel = channel
        self._reader = reader
        self._dialogue = dialogue
        self.name = name
        """Stands in the remote process's command line: a reused group id can't be taken for this shell's."""
        self.group = 0
        """The id of the remote process group."""
        self.git = ""
        """The output of `git --version` there."""
        self._input_closed = False
        self.stuck = False
        """Whether its processes did not end when they were asked to."""

    @classmethod
    async def open(
        cls, connection: asyncssh.SSHClientConnection, dialogue: Dialogue, *, patient: bool = False
    ) -> "Shell":
        """Open a channel and load the script; raise `ShellUnavailableError`, `GitUnavailableError`.

        Unless `patient`, the input of a shell that is silent for `SILENCE` is closed. A shell that was only
        slow (because of its start-up files) answers then, but can't be used any more.
        """
        name = f"sync-staging-{secrets.token_hex(8)}"
        reader = ReplyReader()
        # Expected before the channel is open: a gate greets at once.
        greeting = reader.expect(name)
        try:
            channel = await start_command(connection, reader, dialogue.opening(name), window=MAX_REPLY)
        except BaseException:
            greeting.cancel()
            raise
        shell = cls(connection, channel, reader, name, dialogue)
        try:
            await shell._greet(greeting, SILENCE if not patient else None)
        except BaseException:
            greeting.cancel()
            channel.abort()
            raise
        return shell

    async def _greet(self, greeting: "asyncio.Future[Reply]", silence: float | None) -> None:
        # Nothing more is sent before the greeting: some shells would read it as a part of the script.
        try:
            self._write(self._dialogue.preamble(self.name))
            # A start-up file may run fish in place of sh. It reads its whole input before it runs anything.
            if not (await asyncio.wait([greeting], timeout=silence))[0]:
                self._channel.write_eof()
                self._input_closed = True
            reply = await greeting
        except ConnectionLostError as error:
            if self._reader.interrupted:
                raise
            raise gate_error(error.message) or self._unopened(error.message) from error
        hello = reply.out.rpartition("hello ")[2].split(maxsplit=1)
        if reply.status != 0:
            raise error_of(reply)
        if len(hello) != 2 or not _GROUP.fullmatch(hello[0]):  # noqa: PLR2004 (the group and git's version)
            raise self._unopened(escaped(reply.out or reply.err).strip()[-MAX_LAST_WORDS:])
        self.group, self.git = int(hello[0]), escaped(hello[1].strip())[:MAX_MESSAGE]

    def _unopened(self, said: str) -> SyncError:
        return self._dialogue.unopened(said, self._reader.status)

    @property
    def usable(self) -> bool:
        """Whether it takes another request."""
        return not self._input_closed and not self._reader.ended and not self._channel.is_closing()

    async def call(
        self, verb: str, *parts: Fields, batch: Batch = SINGLE, may_move: Awaitable[bool] | None = None
    ) -> Reply:
        """Send one request and return its reply; raise `ConnectionLostError` if no whole reply came.

        With `may_move`, the host begins at once, but moves nothing before that is True.
        """
        token = secrets.token_hex(16)
        reply = self._reader.expect(token, batch)
        try:
            self._write(request(token, verb, parts, go=may_move is None))
            if may_move is not None:
                self._write(go_or_stop(token, may_move=await may_move))
            return await reply
        except BaseException:
            batch.received = text_of(self._reader.out)
            raise
        finally:
            self._reader.forget()

    def _write(self, data: bytes) -> None:
        try:
            self._channel.write(data)
        except (OSError, asyncssh.Error) as error:
            raise ConnectionLostError(str(error)) from error

    async def close(self) -> None:
        """End an idle shell, and wait until the host has closed its session."""
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(CLOSE_LIMIT):
                self._channel.write_eof()
                await self._reader.closed.wait()
        self._channel.abort()

    def abandon(self) -> None:
        """Close the channel without waiting for the other end."""
        self._channel.abort()
