"""`demo`: a guided tour on this machine alone."""

import argparse
from importlib import import_module

from listener.cli.options import WRONG_USAGE, Commands, add_command


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        "demo",
        demo,
        summary="show it at work: an sshd, a published repository and a listener of its own",
        example="sync-staging demo",
        done="everything went as it should",
        failed="something did not",
        misused=WRONG_USAGE,
    )


async def demo(_arguments: argparse.Namespace) -> int:
    """Run the demo."""
    # Its host and its repository are wanted by no other command: they are loaded here.
    status: int = await import_module("listener.demo").run()
    return status
