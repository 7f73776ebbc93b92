"""What the tests of logging in share: keys, agents, and the failures that they wait for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from listener.errors import SyncError
from listener.rehearsal.sshd import LoopbackHost

Enter = Callable[..., Awaitable[asyncssh.SSHClientConnection]]
"""Logs in to a host, within `limit` seconds, through the connection `tunnel`."""


async def failure(attempt: Awaitable[object]) -> SyncError:
    """The error that an attempt ends with; it always says what to do."""
    with pytest.raises(SyncError) as failed:
        await attempt
    assert failed.value.remedy
    return failed.value


def known(sshd: LoopbackHost, port: int, path: Path) -> str:
    """The path of a known_hosts file that expects an sshd's key behind another port."""
    sshd.trust(path, port)
    return str(path)


async def stranger(path: Path, passphrase: str = "") -> str:
    """The path of a new key that no host knows."""
    made = await asyncio.create_subprocess_exec(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)
    )
    assert await made.wait() == 0
    return str(path)


async def _answers(socket: Path) -> bool:
    """Whether somebody listens there: a socket is made before anybody does."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def agent_with(folder: Path, *keys: str | Path) -> AsyncIterator[str]:
    """The socket of an ssh-agent that holds keys."""
    path = folder / "agent"
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(path), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(300):
            while not await _answers(path):
                await asyncio.sleep(0.01)
        for key in keys:
            adding = await asyncio.create_subprocess_exec(
                "ssh-add", "-q", str(key), env={"SSH_AUTH_SOCK": str(path), "PATH": "/usr/bin:/bin"}
            )
            assert await adding.wait() == 0
        yield str(path)
    finally:
        agent.terminate()
        await agent.wait()
