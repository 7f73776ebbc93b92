"""Git on the listener's own machine: its environment and its limits.

Its input comes from hosts, and a host may be broken or hostile. So its memory, its output and its use of the
disk are limited, and no process that it started outlives it.
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

MAX_OUTPUT = 64 << 20
"""Bytes that a git process may print: even a small repository can have trees with any number of paths."""

MAX_STDERR = 64 << 10
"""Bytes of its standard error that are kept, both of the beginning and of the end."""

MAX_MEMORY = 512 << 20
"""Bytes of memory of a git process (RLIMIT_DATA)."""
MAX_TRANSFER_MEMORY = 2 << 30
"""The same for one that makes or unpacks packs."""

MIN_FREE = 256 << 20
"""Bytes that stay free on the file system of the cache: the store is often on the same one."""

WATCH_INTERVAL = 0.5
"""Seconds between two checks of a running process."""

MAX_ORPHAN_CHECKS = 4
"""Checks after which a process that outlives the git that started it is killed."""

END_LIMIT = 1.0
"""Seconds that git may take to end when it is asked to. Then it is killed."""

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
    # A host may name other addresses (submodules, alternates): git may use only the socket that it inherits.
    "GIT_ALLOW_PROTOCOL": "fd",
}

_TRANSFERS = frozenset({"fetch", "push", "gc"})


@dataclass(frozen=True, slots=True)
class GitResult:
    """The status and the output of a git process."""

    status: int
    out: str
    err: str


async def start_git(
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
    most = MAX_TRANSFER_MEMORY if _TRANSFERS & set(words) else MAX_MEMORY
    # In time: it has read nothing from a host yet. If it has ended already, it needs no limit.
    with contextlib.suppress(OSError):
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
    return process


async def read_git(process: asyncio.subprocess.Process, growing: Path | None = None) -> GitResult:
    """Read git's output until it ends. If the caller is cancelled, git and all that it started is ended.

    The helper of a transfer runs as long as the other end, even if git itself has given up: it is killed.
    `growing` is the folder that a transfer fills. Raises `CacheError` if its disk is nearly full, and
    `UnsupportedRepositoryError` if git prints too much.
    """
    reading = asyncio.ensure_future(_read_all(process))
    orphan_checks = 0
    try:
        while not reading.done():
            if growing is not None:
                check_room(growing)
            await asyncio.wait([reading], timeout=WATCH_INTERVAL)
            orphan_checks += process.returncode is not None
            if orphan_checks > MAX_ORPHAN_CHECKS and not reading.done():
                _send(signal.SIGKILL, process)
        return reading.result()
    finally:
        if process.returncode is None or not reading.done():
            await asyncio.shield(_end(process, reading))


async def _end(process: asyncio.subprocess.Process, reading: "asyncio.Future[GitResult]") -> None:
    """End git and what it started. It is asked first: a git that is killed leaves its locks."""
    _send(signal.SIGTERM, process)
    try:
        await asyncio.wait([reading], timeout=END_LIMIT)
    finally:
        _send(signal.SIGKILL, process)
    await asyncio.wait([reading])
    await process.wait()


def check_room(folder: Path) -> None:
    """Raise `CacheError` if a folder's file system is nearly full."""
    if shutil.disk_usage(folder).free < MIN_FREE:
        raise CacheError(f"The file system of {folder} has less than {MIN_FREE >> 20} MiB left.")


async def _read_all(process: asyncio.subprocess.Process) -> GitResult:
    assert process.stdout is not None  # noqa: S101 (started with pipes)
    assert process.stderr is not None  # noqa: S101 (likewise)
    out, err = await asyncio.gather(_read(process.stdout), _read_ends(process.stderr))
    return GitResult(await process.wait(), _text(out), _text(err))


async def _read(stream: asyncio.StreamReader) -> bytes:
    """Return the whole output; raise `UnsupportedRepositoryError` if it is too long."""
    read = bytearray()
    while part := await stream.read(1 << 16):
        read += part
        if len(read) > MAX_OUTPUT:
            raise UnsupportedRepositoryError(
                f"git printed over {MAX_OUTPUT >> 20} MiB about the repository.",
                remedy="find out why it has so many paths in its trees, or so many branches",
            )
    return bytes(read)


async def _read_ends(stream: asyncio.StreamReader) -> bytes:
    """Return the beginning and the end of the output."""
    begin, end = bytearray(), bytearray()
    while part := await stream.read(1 << 16):
        room = MAX_STDERR - len(begin)
        begin += part[:room]
        end = (end + part[room:])[-MAX_STDERR:]
    return bytes(begin + end)


def _send(number: signal.Signals, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
