"""Ending what a rehearsal's SSH server has started, whoever its parent is by now.

A remote command outlives its connection, and then belongs to nobody: it is known by a mark in its
environment. Found through /proc; where there is none, nothing is found and sessions end with their clients.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

MARK = "SYNC_STAGING_REHEARSAL"
"""The environment variable whose value is the server's own."""


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        # It may end between being listed and being read.
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def end(pids: Iterable[int]) -> None:
    """Kill processes; those that have ended already are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_marked(mark: str) -> None:
    """Kill every process that carries the mark, and those that they start meanwhile."""
    while pids := _marked(mark):
        end(pids)
        time.sleep(0.005)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        # Not ours to read, or ended meanwhile: not ours to end.
        with contextlib.suppress(OSError):
            if wanted in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found
