"""Being told when a branch moves, by the kernel: asking again and again would take a core from the sides."""

import asyncio
import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

MOVED_TO = 0x80
HEADER = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Watched:
    """A branch of a repository: enter it before the move, and wait for the time of the move."""

    def __init__(self, metadata: Path, branch: str = "staging") -> None:
        self._folder = metadata / "refs" / "heads"
        self._branch = branch.encode()

    def __enter__(self) -> Self:
        self._moved: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(self._folder), MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), f"{self._folder} can't be watched")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        now = time.perf_counter()
        with contextlib.suppress(BlockingIOError):
            if self._branch in names(os.read(self._descriptor, 4096)) and not self._moved.done():
                self._moved.set_result(now)

    async def at(self) -> float:
        """When it moved, by `time.perf_counter`."""
        done, _ = await asyncio.wait([self._moved], timeout=60)
        if not done:
            raise RuntimeError(f"{self._folder} has not moved")
        return self._moved.result()


def names(said: bytes) -> Iterator[bytes]:
    """The names in what inotify says."""
    while said:
        length = HEADER.unpack_from(said)[3]
        yield said[HEADER.size : HEADER.size + length].rstrip(b"\0")
        said = said[HEADER.size + length :]
