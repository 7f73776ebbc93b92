"""`serve`, `check-config` and `demo`."""

import argparse

from listener.cli.options import WRONG_USAGE, add_config, add_json, describe


def serve(parser: argparse.ArgumentParser) -> None:
    """Describe `serve`."""
    describe(
        parser,
        "cli.serve:serve",
        example="sync-staging serve --config /etc/sync-staging/listener.yaml",
        done="stopped as requested: running syncs have ended, or are back in the queue",
        failed="the configuration is invalid, the port is in use, or another listener has the store open",
        misused=WRONG_USAGE,
    )
    add_config(parser)


def check_config(parser: argparse.ArgumentParser) -> None:
    """Describe `check-config`."""
    describe(
        parser,
        "cli.configuration:check_config",
        example="sync-staging check-config --connect",
        done="the configuration is valid and, with --connect, all hosts and repositories answer",
        failed="the configuration is invalid, or a host or repository does not answer or would be refused",
        misused=WRONG_USAGE,
    )
    parser.add_argument(
        "--connect", action="store_true", help="also log in to every host and look at every environment"
    )
    add_config(parser)
    add_json(parser)


def demo(parser: argparse.ArgumentParser) -> None:
    """Describe `demo`."""
    describe(
        parser,
        "demo:demo",
        example="sync-staging demo",
        done="everything worked as expected",
        failed="something did not work as expected",
        misused=WRONG_USAGE,
    )
