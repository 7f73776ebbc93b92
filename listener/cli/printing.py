"""How commands print: text made safe for a terminal, or JSON.

All text from a listener or a repository comes through here: a path, a reason or a log line may contain
characters that move a terminal's cursor, hide text or break a line.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from listener.cli import streams
from listener.cli.failures import OutputError
from listener.errors import ListenerError
from listener.redaction import Cleaner

_clean = Cleaner()


def say(text: str) -> None:
    """Print one line to standard output."""
    _write(sys.stdout, f"{_clean(text)}\n")


def verbatim(text: str) -> None:
    """Print a text of this program's own to standard output, unchanged."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Print one line to standard error: progress and notes, which are not part of the result."""
    _write(sys.stderr, f"{_clean(text)}\n")


def document(value: Any) -> None:
    """Print one JSON document to standard output."""
    _write(sys.stdout, f"{_json(value, indent=2)}\n")


def json_line(value: Any) -> None:
    """Print one line of JSON Lines to standard output."""
    _write(sys.stdout, f"{_json(value)}\n")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output, its columns as wide as their cells."""
    lines = [tuple(headings), *(tuple(_clean(cell) or "-" for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        _write(sys.stdout, f"{'  '.join(cells).rstrip()}\n")


def failure(error: ListenerError) -> None:
    """Print an error and its remedy to standard error; a configuration error has a line for each problem."""
    for line in f"error: {error.message}".splitlines():
        note(line)
    if error.remedy:
        note(f"remedy: {error.remedy}")


def _json(value: Any, indent: int | None = None) -> str:
    # ASCII is safe for a terminal and loses nothing. json escapes all its control characters but DEL.
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def flush() -> None:
    """Flush standard output; raise as `say` does."""
    _write(sys.stdout, "")


def _write(stream: TextIO, text: str) -> None:
    """Write text; raise `BrokenPipeError` if the reader has gone, `OutputError` if there is no space.

    Errors of standard error are ignored: the command goes on without its notes.
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        if stream is sys.stdout:
            raise
    except OSError as error:
        if stream is sys.stdout:
            streams.discard(stream)
            raise OutputError(f"The output can't be written: {error.strerror}.") from error
