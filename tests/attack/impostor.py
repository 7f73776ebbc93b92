"""A repo host that lies: an SSH server that takes the listener's key and then answers as it is told to."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self

import asyncssh

from listener.rehearsal.sshd import Sshd

Process = asyncssh.SSHServerProcess[bytes]
Behaviour = Callable[[Process], Awaitable[None]]

_REQUEST = re.compile(rb"^([0-9a-f]{32}) (\w+)$", re.MULTILINE)

GREETING = b'\nss_dialogue "$1"\n'

HELLO = b"hello 424242 git version 2.39.2\n"


class Impostor:
    """Listens on loopback; `behaviour` is what every session gets, and changing it cuts all connections."""

    def __init__(self, sshd: Sshd, folder: Path) -> None:
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._authorized = folder / "authorized"
        public = asyncssh.read_private_key(sshd.identity).export_public_key()
        self._authorized.write_bytes(public)
        self.known_hosts = folder / "known_hosts_of_both"
        self._others = sshd.known_hosts.read_text()
        self._behaviour: Behaviour = silent
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        impostor = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                impostor._connections.add(conn)

        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[self._key],
            authorized_client_keys=str(self._authorized),
            process_factory=self._handle,
            encoding=None,
        )
        self.port = self._acceptor.get_port()
        public = self._key.export_public_key().decode()
        self.known_hosts.write_text(f"{self._others}[127.0.0.1]:{self.port} {public}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._acceptor.close()
        self._cut()
        await self._acceptor.wait_closed()

    def behave(self, behaviour: Behaviour) -> None:
        """Answer so from now on."""
        self._behaviour = behaviour
        self._cut()

    def _cut(self) -> None:
        for connection in self._connections:
            connection.abort()
        self._connections.clear()

    async def _handle(self, process: Process) -> None:
        try:
            await self._behaviour(process)
        except (asyncssh.Error, OSError):
            pass
        finally:
            process.exit(0)


async def requests(process: Process) -> AsyncIterator[tuple[bytes, bytes]]:
    """The token and the verb of each request of the dialogue; first that of the greeting."""
    said = b""
    while GREETING not in said:
        data = await process.stdin.read(1 << 16)
        if not data:
            return
        said += data
    yield (process.command or "").split()[-1].encode(), b"hello"
    said = said.partition(GREETING)[2]
    while data := await process.stdin.read(1 << 16):
        said += data
        end = 0
        for found in _REQUEST.finditer(said):
            yield found[1], found[2]
            end = found.end()
        said = said[end:]


def ended(token: bytes, out: bytes, process: Process, err: bytes = b"") -> None:
    """Answer a request as our script does."""
    process.stdout.write(out + b"\n" + token + b" 0\n")
    process.stderr.write(err + b"\n" + token + b"\n")


async def pour(process: Process, data: bytes, *, error: bool = False) -> None:
    """Say the same for ever."""
    stream = process.stderr if error else process.stdout
    while True:
        stream.write(data)
        await stream.drain()


async def silent(process: Process) -> None:
    """Never answer."""
    async for _ in requests(process):
        pass


def answering(text: bytes, err: bytes = b"") -> Behaviour:
    """Greet well, and answer every question so."""

    async def behave(process: Process) -> None:
        async for token, function in requests(process):
            ended(token, HELLO if function == b"hello" else text, process, err)

    return behave


def pouring(data: bytes, *, error: bool = False) -> Behaviour:
    """Talk without having been asked."""

    async def behave(process: Process) -> None:
        await pour(process, data, error=error)

    return behave


def greeting_then(data: bytes, *, framed: bool = False, error: bool = False) -> Behaviour:
    """Greet well, and then never stop: within an answer whose end has come or not."""

    async def behave(process: Process) -> None:
        async for token, function in requests(process):
            if function == b"hello":
                ended(token, HELLO, process)
                if not framed:
                    await pour(process, data, error=error)
            else:
                process.stderr.write(b"\n" + token + b"\n")
                process.stdout.write(b"\n" + token + b" ")
                await pour(process, data)

    return behave


def packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


BRANCHES = 1000
"""How many are told at a time."""


def branches(number: int) -> bytes:
    """The packets of so many branches from a number on. Only their names differ: that is made quickly."""
    digits = f"{number // BRANCHES:05}".encode()
    return _PACKETS.replace(b"?????", digits)


_PACKETS = b"".join(
    packet(b"%040x refs/heads/?????%03d_in_progress\n" % (each + 1, each)) for each in range(BRANCHES)
)


def advertising(count: int | None) -> Behaviour:
    """Be a git service with so many branches, or endlessly many."""

    async def behave(process: Process) -> None:
        number = 0
        capabilities = b"\0ofs-delta symref=HEAD:refs/heads/live\n"
        process.stdout.write(packet(b"1" * 40 + b" HEAD" + capabilities))
        while count is None or number < count:
            process.stdout.write(branches(number))
            await process.stdout.drain()
            number += BRANCHES
        process.stdout.write(b"0000")
        await asyncio.sleep(60)

    return behave
