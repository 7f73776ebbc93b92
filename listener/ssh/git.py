"""Git on the listener's own machine: what it is started with, and the bounds that it is held in.

What it reads comes from hosts, one of which may be broken or hostile: its memory, what it prints and the disk
that it fills are bounded, and nothing that it started outlives it.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from listener.errors import CacheError, UnsupportedRepositoryError

OUTPUT_MOST = 64 << 20
"""Bytes that a git process may print: a small repository can have trees of any number of paths."""

SAID_MOST = 64 << 10
"""Bytes of its standard error that are kept, from the beginning and from the end."""

MEMORY_MOST = 512 << 20
"""Bytes of memory of its own that a git process gets."""
TRANSFER_MEMORY_MOST = 2 << 30
"""The same for those that make or unpack packs."""

ROOM_LEAST = 256 << 20
"""Bytes that the file system of the cache keeps free: the store often lies on it too."""

WATCHED = 0.5
"""Seconds between two looks at a process that goes on."""

LINGERING = 4
"""Looks, about, for which what git started may outlive it."""

ENDING = 1.0
"""Seconds that git may take to end, once it is asked to, before it is killed."""

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    # Whatever a host names, git goes nowhere but through the socket that it is given.
    "GIT_ALLOW_PROTOCOL": "fd",
}

_TRANSFERS = frozenset({"fetch", "push", "gc"})


@dataclass(frozen=True, slots=True)
class Done:
    """How a git process ended."""

    status: int
    out: str
    err: str


async def started(
    *words: str, env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> asyncio.subprocess.Process:
    """Start git, in a process group of its own; raise `CacheError`."""
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *words,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        raise CacheError(
            f"git can't be started on the listener's machine: {error.strerror}",
            remedy="install git there; if it is, see the limits on processes and open files",
        ) from error
    most = TRANSFER_MEMORY_MOST if _TRANSFERS & set(words) else MEMORY_MOST
    # It has nothing of a host's yet. One that has ended already needs no limit.
    with contextlib.suppress(OSError):
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
    return process


async def heard(process: asyncio.subprocess.Process, growing: Path | None = None) -> Done:
    """Return what git says until it ends, by itself or with the caller; nothing that it started outlives it.

    The helper of a transfer that git gave up goes on for as long as the other end does. `growing` is the
    folder that a transfer fills. Raises `CacheError` where its disk is nearly full, and
    `UnsupportedRepositoryError` where git has more to say than anybody can read.
    """
    hearing = asyncio.ensure_future(_all_said(process))
    lingering = 0
    try:
        while not hearing.done():
            if growing is not None:
                check_room(growing)
            await asyncio.wait([hearing], timeout=WATCHED)
            lingering += process.returncode is not None
            if lingering > LINGERING and not hearing.done():
                _send(signal.SIGKILL, process)
        return hearing.result()
    finally:
        if process.returncode is None or not hearing.done():
            await asyncio.shield(_end(process, hearing))


async def _end(process: asyncio.subprocess.Process, hearing: "asyncio.Future[Done]") -> None:
    """End git and what it started. It is asked first: where it is killed, its locks stay."""
    _send(signal.SIGTERM, process)
    try:
        await asyncio.wait([hearing], timeout=ENDING)
    finally:
        _send(signal.SIGKILL, process)
    await asyncio.wait([hearing])
    await process.wait()


def check_room(folder: Path) -> None:
    """Raise `CacheError` if a folder's file system is nearly full."""
    if shutil.disk_usage(folder).free < ROOM_LEAST:
        raise CacheError(f"The file system of {folder} has less than {ROOM_LEAST >> 20} MiB left.")


async def _all_said(process: asyncio.subprocess.Process) -> Done:
    assert process.stdout is not None  # noqa: S101 (started with pipes)
    assert process.stderr is not None  # noqa: S101 (likewise)
    out, err = await asyncio.gather(_read(process.stdout), _read_some(process.stderr))
    return Done(await process.wait(), _text(out), _text(err))


async def _read(stream: asyncio.StreamReader) -> bytes:
    """Return all that comes; raise `UnsupportedRepositoryError` where there is no end of it."""
    read = bytearray()
    while part := await stream.read(1 << 16):
        read += part
        if len(read) > OUTPUT_MOST:
            raise UnsupportedRepositoryError(
                f"git has over {OUTPUT_MOST >> 20} MiB to tell of the repository.",
                remedy="see what it has so many of: paths in its trees, or branches",
            )
    return bytes(read)


async def _read_some(stream: asyncio.StreamReader) -> bytes:
    """Return the beginning and the end of all that comes."""
    begin, end = bytearray(), bytearray()
    while part := await stream.read(1 << 16):
        room = SAID_MOST - len(begin)
        begin += part[:room]
        end = (end + part[room:])[-SAID_MOST:]
    return bytes(begin + end)


def _send(number: signal.Signals, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
