"""`serve`, `check-config`, `doctor` and `demo`."""

import argparse

from listener.cli.options import WRONG_USAGE, add_config, add_json, describe

LONGEST = 3600
"""Seconds."""


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


def doctor(parser: argparse.ArgumentParser) -> None:
    """Describe `doctor`."""
    describe(
        parser,
        "cli.doctor.command:doctor",
        example="sync-staging doctor",
        done="no problem was found; there may be warnings",
        failed="there is a problem; with --strict, a problem or a warning",
        misused="the command line is wrong, or the configuration can't be read or used",
    )
    parser.add_argument("--verbose", action="store_true", help="also print the checks without a fault")
    parser.add_argument("--strict", action="store_true", help="let a warning count as a problem")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="SECONDS",
        help="how long each host, its repositories and Studio may take (default: 120)",
    )
    parser.add_argument(
        "--unit",
        default="sync-staging.service",
        metavar="NAME",
        help="the listener's unit of systemd (default: sync-staging.service)",
    )
    add_config(parser)
    add_json(parser)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, more than 0 and at most {LONGEST}")
    return seconds


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
