"""Carries a command line out, and turns whatever happens into an exit status."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from listener.cli import parser, printing, streams
from listener.cli.failures import CUT_OFF, DONE, INTERRUPTED, exit_status
from listener.errors import ListenerError

if TYPE_CHECKING:
    from argparse import Namespace


def run(words: Sequence[str]) -> int:
    """Carry a command line out and return its exit status; what was wrong goes to standard error."""
    streams.prepare()
    try:
        status = _carried_out(words)
        # What is still to be written may fail, too: the interpreter would end with a status of its own.
        printing.flush()
    except BrokenPipeError:
        streams.discard(sys.stdout)
        return CUT_OFF
    except ListenerError as error:
        printing.failure(error)
        return exit_status(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    else:
        return status
    finally:
        streams.flush_errors()


def _carried_out(words: Sequence[str]) -> int:
    try:
        arguments = parser.build().parse_args(words)
    except SystemExit as told:
        # Help was asked for, or the command line is wrong: argparse has told.
        return int(told.code or DONE)
    module, _, name = arguments.handler.partition(":")
    handler: Callable[[Namespace], int] = getattr(import_module(f"listener.{module}"), name)
    return handler(arguments)
