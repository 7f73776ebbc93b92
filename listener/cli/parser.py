"""The command line as a whole."""

import argparse

from listener import __version__
from listener.cli import (
    configuration,
    deliveries,
    demo,
    hooks,
    hosts,
    rollback,
    runs,
    serve,
    sites,
    store,
    sync,
    tokens,
)

_FAMILIES = (serve, configuration, sync, sites, runs, rollback, deliveries, store, tokens, hooks, hosts, demo)


def build() -> argparse.ArgumentParser:
    """Return the parser; what it parses has a `handler`."""
    parser = argparse.ArgumentParser(
        prog="sync-staging",
        description="Keeps every staging environment of a CrafterCMS site equal to its live one.",
        epilog="Example:\n  sync-staging status\n\nExit status: 0 done, 1 failed, 2 not understood or not "
        "reached, 130 interrupted, 141 the reader of the output has gone; COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sync-staging {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for family in _FAMILIES:
        family.add(commands)
    return parser
