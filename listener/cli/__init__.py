"""The command line: `sync-staging COMMAND …`."""

from listener.cli.invocation import run

__all__ = ["run"]
