"""The three standard streams, whatever they were started with: closed, full, or without a reader."""

import os
import sys
from io import TextIOWrapper
from typing import TextIO

_NAMES = ("stdin", "stdout", "stderr")


def prepare() -> None:
    """Give every standard stream somewhere to lead, and let it print whatever there is to be printed.

    The number of a closed stream is given to the next file that is opened, the store perhaps, and whatever is
    printed to that stream would be written into it.
    """
    for number, name in enumerate(_NAMES):
        if not _is_open(number):
            _lead_nowhere(number)
        if getattr(sys, name) is None:
            setattr(sys, name, _stream(number))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What the terminal's encoding does not have is escaped.
            stream.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Let the interpreter's last flush have somewhere to go (https://docs.python.org/3/library/signal.html).

    It would end the process with a status of its own, 120, where that fails.
    """
    _lead_nowhere(stream.fileno())


def flush_errors() -> None:
    """Write what standard error still holds, or drop it."""
    try:
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    else:
        os.set_inheritable(number, True)


def _stream(number: int) -> TextIO:
    return open(number, "w" if number else "r", encoding="utf-8", closefd=False)
