"""Runs a command line, and turns every outcome into an exit status."""

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
    """Run a command line and return its exit status. Errors are printed to standard error."""
    streams.prepare()
    try:
        status = _run(words)
        # Buffered output may fail to be written. Without this, the interpreter would exit with 120.
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


def _run(words: Sequence[str]) -> int:
    try:
        arguments = parser.build().parse_args(words)
    except SystemExit as ended:
        # argparse has printed the help, or what is wrong with the command line.
        return int(ended.code or DONE)
    module, _, name = arguments.handler.partition(":")
    handler: Callable[[Namespace], int] = getattr(import_module(f"listener.{module}"), name)
    return handler(arguments)
