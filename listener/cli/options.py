"""Building blocks of the parser: a command with its help, and the options that several commands have."""

import argparse
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from listener.config.address import DEFAULT_PATH

Handler = Callable[[argparse.Namespace], int | Coroutine[Any, Any, int]]
"""Carries a command out and returns its exit status."""

CONFIG_VARIABLE = "SYNC_STAGING_CONFIG"
URL_VARIABLE = "SYNC_STAGING_URL"
CA_VARIABLE = "SYNC_STAGING_CA"
TOKEN_VARIABLE = "SYNC_STAGING_TOKEN"  # noqa: S105 (the name of a variable)

UNASKED = "the command line is wrong, the listener can't be reached, or it refuses the token"
"""What exit status 2 means for a command that talks to the listener."""
WRONG_USAGE = "the command line is wrong"


PAGE_MOST = 200
"""How much of a history the listener tells at once."""


class Commands(Protocol):
    """Where commands are added: what `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser:
        """Add one command and return its parser."""


def add_command(
    commands: Commands,
    name: str,
    handler: Handler,
    *,
    summary: str,
    example: str,
    done: str = "done",
    failed: str,
    misused: str = UNASKED,
) -> argparse.ArgumentParser:
    """Add a command; its help has the summary, an example, and what each exit status means."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"Example:\n{_indented(example)}\n\n{_exits(done, failed, misused)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=handler)
    return parser


def add_group(commands: Commands, name: str, *, summary: str, example: str) -> Commands:
    """Add a command that consists of others, and return where they are added."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"Example:\n{_indented(example)}\n\nExit status: that of the command below {name}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser.add_subparsers(metavar="COMMAND", required=True, dest=f"{name}_command")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help=f"the configuration file (default: ${CONFIG_VARIABLE}, else {DEFAULT_PATH})",
    )


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add `--url`, and `--config`, from which the listener's address is read otherwise."""
    add_config(parser)
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"the listener's address (default: ${URL_VARIABLE}, else that of the configuration)",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="PATH",
        help="the certificate, or those that signed it, to know an https listener by (default: "
        f"${CA_VARIABLE}, else the configured one, else the system's)",
    )


def add_client(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs to talk to the listener."""
    add_url(parser)
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help=f"a file with the API token (default: the token in ${TOKEN_VARIABLE})",
    )


def add_json(parser: argparse.ArgumentParser, what: str = "one JSON document") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=f"print {what} to standard output")


def add_page(parser: argparse.ArgumentParser, what: str) -> None:
    """Add which page of a history is told."""
    parser.add_argument("--limit", type=_limit, default=50, metavar="N", help="at most N (default: 50)")
    parser.add_argument(
        "--before", metavar="ID", help=f"only what is older than the {what} of this id: the next page"
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name one environment of one site."""
    parser.add_argument("site", metavar="SITE", help="the site's id")
    parser.add_argument("environment", metavar="ENVIRONMENT", help="the environment's name")


def _limit(text: str) -> int:
    number = int(text)
    if not 1 <= number <= PAGE_MOST:
        raise argparse.ArgumentTypeError(f"is from 1 to {PAGE_MOST}")
    return number


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _exits(done: str, failed: str, misused: str) -> str:
    return f"Exit status:\n  0  {done}\n  1  {failed}\n  2  {misused}"
