"""The command line as a whole: which commands there are, and who describes each."""

import argparse
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from listener import __version__

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": ("daemon:serve", "run the listener until SIGTERM or SIGINT"),
    "check-config": (
        "daemon:check_config",
        "read the configuration; print what it means, or everything that is wrong with it",
    ),
    "doctor": (
        "daemon:doctor",
        "check everything that the listener needs; print what is wrong, and what to do",
    ),
    "sync": ("environments:sync", "make one environment of a site equal to live, and wait until it is"),
    "status": ("environments:status", "show how all environments, or those of one site, differ from live"),
    "hold": ("environments:hold", "freeze an environment: nothing syncs it until it is released"),
    "release": ("environments:release", "end a hold; an environment that follows live is synced"),
    "tail": (
        "history:tail",
        "print events as they happen: runs, deliveries, refusals, holds, looks, hosts",
    ),
    "runs": ("history:runs", "list runs, show one or its log, retry or cancel one"),
    "rollback": ("environments:rollback", "undo a run: move the environment back to where it was before"),
    "deliveries": ("history:deliveries", "list deliveries and refused requests, show or redeliver one"),
    "store": ("store:store", "back up, restore, check, prune or move the store"),
    "token": ("credentials:token", "make an API token, or list the tokens in use"),
    "hook": (
        "credentials:hook",
        "send a test delivery to a hook, or list the hooks in use",
    ),
    "host": ("credentials:host", "restrict what the listener's key may do on a host"),
    "demo": (
        "daemon:demo",
        "show syncs at work, with an SSH server and a repository of its own",
    ),
}
"""Each command's grammar (`module:function` in `listener.cli.grammar`) and its line in the help."""


USUAL_COLUMNS = 80
"""The width of help that no terminal shows."""

_EPILOG = """\
Example:
  sync-staging status

Exit status:
  0    done
  1    failed
  2    the command line is wrong, the listener can't be reached, or it refuses the token
  130  interrupted
  141  the reader of the output has gone

sync-staging COMMAND --help explains a command."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows the width of the terminal without `shutil`, which argparse would import to ask for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    text = os.environ.get("COLUMNS", "")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    try:
        return os.get_terminal_size(1).columns or USUAL_COLUMNS
    except OSError:
        return USUAL_COLUMNS


class Command(argparse.ArgumentParser):
    """One command's parser. Its grammar is imported only when the command line names it."""

    def __init__(self, *, grammar: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=_Formatter)
        self._grammar = grammar

    def describe(self) -> None:
        """Add the command's arguments and the rest of its help, once."""
        if self._grammar:
            module, _, name = self._grammar.partition(":")
            self._grammar = ""
            getattr(import_module(f"listener.cli.grammar.{module}"), name)(self)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not one of the choices, and name the one that was probably meant."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = import_module("difflib").get_close_matches(str(value), known, 1, 0.7)
        hint = f"did you mean {close[0]}? " if close else ""
        raise argparse.ArgumentError(action, f"unknown: {value!r}; {hint}Known: {', '.join(known)}")

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, once the command is described: every parse of argparse's own comes through here."""
        self.describe()
        return super().parse_known_args(*args, **kwargs)


def build() -> argparse.ArgumentParser:
    """Return the parser. What it parses has a `handler`: `module:function` in `listener.cli`."""
    parser = Command(
        prog="sync-staging",
        description="Keeps every staging environment of a CrafterCMS site equal to its live one.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"sync-staging {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, (grammar, summary) in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        commands.add_parser(name, help=summary, description=description, grammar=grammar)
    return parser
