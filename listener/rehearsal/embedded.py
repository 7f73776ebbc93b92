"""An SSH server in this process, for machines without sshd.

It runs commands as sshd does: through `sh`, each as a process in its own session, which outlives a lost
connection.
"""

import asyncio
import contextlib
import os
import pwd
import signal
from pathlib import Path
from typing import Self

import asyncssh

from listener.rehearsal.processes import MARK, end_marked
from listener.rehearsal.sshd import LoopbackHost

CHUNK = 1 << 16


class EmbeddedServer(LoopbackHost):
    """An SSH server that behaves like `Sshd`. Entering it starts it, leaving it stops it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._sessions: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it on its port; raise `OSError`."""
        self._acceptor = await asyncssh.listen(
            self.address,
            self.port,
            server_host_keys=[str(self.folder / "host_key")],
            server_factory=lambda: _Guard(self),
            process_factory=self._serve,
            encoding=None,
        )

    async def stop(self) -> None:
        """End the server, its connections and its commands, as a power cut does."""
        if self._acceptor is None:
            return
        self._acceptor.close()
        for connection in tuple(self._connections):
            connection.abort()
        await self._acceptor.wait_closed()
        self._acceptor = None
        end_marked(self.mark)
        await asyncio.gather(*self._sessions)

    async def new_host_key(self) -> None:
        """Replace the host key, as on a reinstalled or impersonated host."""
        self._make_host_key()
        await self.stop()
        await self.start()

    def admit(self, connection: asyncssh.SSHServerConnection) -> None:
        """Remember a connection that was made."""
        self._connections.add(connection)

    def forget(self, connection: asyncssh.SSHServerConnection) -> None:
        """Forget a connection that was lost."""
        self._connections.discard(connection)

    async def _serve(self, session: "asyncssh.SSHServerProcess[bytes]") -> None:
        """Log a command and run it to its end."""
        with self._log.open("a") as log:
            log.write(f"Starting session: {session.command or 'shell'}\n")
        running = asyncio.ensure_future(self._run(session))
        self._sessions.add(running)
        running.add_done_callback(self._sessions.discard)
        await running

    async def _run(self, session: "asyncssh.SSHServerProcess[bytes]") -> None:
        """Run one command with the session's streams, and report its exit. Signals are not passed on."""
        (from_stdout, stdout), (from_stderr, stderr) = os.pipe(), os.pipe()
        command = ("-c", session.command) if session.command else ()
        try:
            child = await asyncio.create_subprocess_exec(
                *("/bin/sh", *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env=self._environment(),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(stdout)
            os.close(stderr)
        feeding = asyncio.ensure_future(_feed(session.stdin, child.stdin))
        await asyncio.gather(_send(from_stdout, session.stdout), _send(from_stderr, session.stderr))
        status = await child.wait()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        if status < 0:
            session.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            session.exit(status)
        await session.wait_closed()

    def _environment(self) -> dict[str, str]:
        """Return the environment that sshd gives a command. Only PATH comes from this process."""
        return {
            "HOME": pwd.getpwnam(self.user).pw_dir,
            "LOGNAME": self.user,
            "PATH": os.environ.get("PATH", os.defpath),
            "SHELL": "/bin/sh",
            "USER": self.user,
            MARK: self.mark,
        }


async def _feed(source: "asyncssh.SSHReader[bytes]", stdin: asyncio.StreamWriter | None) -> None:
    """Copy a session's input to a command, until one of them ends."""
    if stdin is None:
        return
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(CHUNK):
            stdin.write(data)
            await stdin.drain()
    stdin.close()


async def _send(pipe: int, sink: "asyncssh.SSHWriter[bytes]") -> None:
    """Copy a command's output to its session. If the session is gone, the command's next write fails."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
    )
    with contextlib.closing(transport), contextlib.suppress(OSError, asyncssh.Error):
        while data := await reader.read(CHUNK):
            sink.write(data)
            await sink.drain()


class _Guard(asyncssh.SSHServer):
    """Lets in one user with one key."""

    def __init__(self, host: EmbeddedServer) -> None:
        self._host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._host.admit(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.forget(self._connection)

    def begin_auth(self, username: str) -> bool:
        if username == self._host.user:
            self._connection.set_authorized_keys(str(self._host.folder / "authorized_keys"))
        return True
