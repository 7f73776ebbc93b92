"""`tail`: prints events as they happen."""

import argparse

from listener.cli import wording
from listener.cli.client import connected
from listener.cli.failures import DONE
from listener.cli.printing import note, say, verbatim


def tail(arguments: argparse.Namespace) -> int:
    """Print events, one a line, until interrupted; after a broken connection, go on after the last event."""
    query = [("site", arguments.site), ("environment", arguments.environment), ("since", arguments.since)]
    query += [("kind", kind) for kind in arguments.kind or ()]
    events = connected(arguments).events(
        [(name, value) for name, value in query if value],
        arguments.after,
        follow=not arguments.no_follow,
        on_break=note,
    )
    for line in events:
        if arguments.json:
            verbatim(f"{line}\n")
        else:
            say(wording.event_line(line))
    return DONE
