"""How commands print: text made safe for a terminal, or JSON.

What a listener or a repository tells goes through here: a path, a reason or a log line may hold characters
that move a terminal's cursor, hide text or break a line.
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
    """Print a text of this program's own to standard output, to the letter."""
    _write(sys.stdout, text)


def tell(text: str) -> None:
    """Print one line to standard error: what goes on, and what is no answer."""
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
    """Print what was wrong and what to do to standard error; a configuration error has a line a problem."""
    for line in f"error: {error.message}".splitlines():
        tell(line)
    if error.remedy:
        tell(f"remedy: {error.remedy}")


def _json(value: Any, indent: int | None = None) -> str:
    # ASCII alone is safe for a terminal and loses nothing; of ASCII's control characters, json leaves DEL.
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def flush() -> None:
    """Write what standard output still holds; raise as `say` does."""
    _write(sys.stdout, "")


def _write(stream: TextIO, text: str) -> None:
    """Write text; raise `BrokenPipeError` where the reader has gone, `OutputError` where there is no room.

    What goes on is told to standard error as long as that takes it: the command is carried out all the same.
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
            raise OutputError(f"The answer can't be written: {error.strerror}.") from error
