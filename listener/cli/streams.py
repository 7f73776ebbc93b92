"""The three standard streams, which may be closed, full, or without a reader."""

import os
import sys
from io import TextIOWrapper
from typing import TextIO

_NAMES = ("stdin", "stdout", "stderr")


def prepare() -> None:
    """Open closed standard streams on /dev/null, and let the others print every character.

    The next file that is opened gets the number of a closed stream. That may be the store: what is printed to
    the stream would be written into it.
    """
    for number, name in enumerate(_NAMES):
        if not _is_open(number):
            _lead_to_null(number)
        if getattr(sys, name) is None:
            setattr(sys, name, _stream(number))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A character that the terminal's encoding lacks is escaped.
            stream.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Lead a broken stream to /dev/null (https://docs.python.org/3/library/signal.html#note-on-sigpipe).

    The interpreter flushes it at its end, and would exit with status 120 if that failed.
    """
    _lead_to_null(stream.fileno())


def flush_errors() -> None:
    """Flush standard error; drop what can't be written."""
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


def _lead_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    else:
        os.set_inheritable(number, True)


def _stream(number: int) -> TextIO:
    return open(number, "w" if number else "r", encoding="utf-8", closefd=False)
