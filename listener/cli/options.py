"""Building blocks of the grammar: a command with its help, and the options that several commands have.

Paths stay text here: `pathlib` takes longer to import than a whole parser to build.
"""

import argparse
from typing import Any, Protocol

from listener.web.protocol import PAGE_MOST

DEFAULT_PATH = "/etc/sync-staging/listener.yaml"
"""Where the configuration lies."""

CONFIG_VARIABLE = "SYNC_STAGING_CONFIG"
URL_VARIABLE = "SYNC_STAGING_URL"
CA_VARIABLE = "SYNC_STAGING_CA"
TOKEN_VARIABLE = "SYNC_STAGING_TOKEN"  # noqa: S105 (the name of a variable)

UNASKED = "the command line is wrong, the listener can't be reached, or it refuses the token"
"""What exit status 2 means for a command that talks to the listener."""
WRONG_USAGE = "the command line is wrong"


class Commands(Protocol):
    """Where commands are added: what `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser:
        """Add one command and return its parser."""


def describe(
    parser: argparse.ArgumentParser,
    handler: str,
    *,
    example: str,
    done: str = "done",
    failed: str,
    misused: str = UNASKED,
) -> None:
    """Set what carries a command out (`module:function` in `listener`), its example and its exit statuses."""
    parser.epilog = f"Example:\n{_indented(example)}\n\n{_exits(done, failed, misused)}"
    parser.set_defaults(handler=handler)


def add_command(
    commands: Commands,
    name: str,
    handler: str,
    *,
    summary: str,
    example: str,
    done: str = "done",
    failed: str,
    misused: str = UNASKED,
) -> argparse.ArgumentParser:
    """Add a command to a group, as `describe` describes it."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    describe(parser, handler, example=example, done=done, failed=failed, misused=misused)
    return parser


def add_group(parser: argparse.ArgumentParser, *, example: str) -> Commands:
    """Make a command a group of commands, and return where they are added."""
    parser.epilog = f"Example:\n{_indented(example)}\n\nExit status: see the help of each command."
    return parser.add_subparsers(metavar="COMMAND", required=True, dest="action")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config",
        metavar="PATH",
        help=f"the configuration file (default: ${CONFIG_VARIABLE}, else {DEFAULT_PATH})",
    )


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add `--url`, and `--config`, whose section `server` is read without it."""
    add_config(parser)
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"the listener's address (default: ${URL_VARIABLE}, else that in the configuration)",
    )
    parser.add_argument(
        "--ca",
        metavar="PATH",
        help="the certificate of an https listener, or the CA that signed it (default: "
        f"${CA_VARIABLE}, else the configured certificate, else the system's CAs)",
    )


def add_client(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs to talk to the listener."""
    add_url(parser)
    parser.add_argument(
        "--token-file",
        metavar="PATH",
        help=f"a file with the API token (default: the token in ${TOKEN_VARIABLE})",
    )


def add_json(parser: argparse.ArgumentParser, what: str = "one JSON document") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=f"print {what} to standard output")


def add_page(parser: argparse.ArgumentParser, what: str) -> None:
    """Add which page of a history is listed."""
    parser.add_argument("--limit", type=_limit, default=50, metavar="N", help="list at most N (default: 50)")
    parser.add_argument("--before", metavar="ID", help=f"list what is older than the {what} with this id")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name one environment of one site."""
    parser.add_argument("site", metavar="SITE", help="the site's id")
    parser.add_argument("environment", metavar="ENVIRONMENT", help="the environment's name")


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= PAGE_MOST:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {PAGE_MOST}")
    return int(text)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _exits(done: str, failed: str, misused: str) -> str:
    return f"Exit status:\n  0  {done}\n  1  {failed}\n  2  {misused}"
