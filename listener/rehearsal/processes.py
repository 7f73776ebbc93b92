"""Ending the processes that a rehearsal's SSH server started, even if their parent has ended.

A remote command outlives its connection, and then has another parent. It is found in /proc by a mark in its
environment. Without /proc nothing is found, and commands end with their clients.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

MARK = "SYNC_STAGING_REHEARSAL"
"""The environment variable with the mark of the server."""


def descendants(pid: int) -> list[int]:
    """Return the child processes of a process, and theirs."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        # A process may end before its file is read.
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def end(pids: Iterable[int]) -> None:
    """Kill processes; ignore those that have ended already."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_marked(mark: str) -> None:
    """Kill all processes with the mark, and those that they start in the meantime."""
    while pids := _marked(mark):
        end(pids)
        time.sleep(0.005)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        # Another user's process, or one that has ended.
        with contextlib.suppress(OSError):
            if wanted in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found
