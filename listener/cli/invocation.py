"""Carries a command line out, and turns whatever happens into an exit status."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from io import TextIOWrapper
from typing import Any

from listener.cli import parser, printing
from listener.cli.failures import CUT_OFF, INTERRUPTED, exit_status
from listener.errors import ListenerError


def run(words: Sequence[str]) -> int:
    """Carry a command line out and return its exit status; what was wrong goes to standard error."""
    _print_anything()
    try:
        arguments = parser.build().parse_args(words)
        result: int | Coroutine[Any, Any, int] = arguments.handler(arguments)
        return result if isinstance(result, int) else asyncio.run(result)
    except ListenerError as error:
        printing.failure(error)
        return exit_status(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return CUT_OFF


def _print_anything() -> None:
    """Escape what the terminal's encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let the interpreter's last flush have somewhere to go (https://docs.python.org/3/library/signal.html)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
