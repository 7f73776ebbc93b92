"""`rollback`: undoing a run."""

import argparse

from listener.cli import wording
from listener.cli.client import connected, path
from listener.cli.failures import DONE, FAILED
from listener.cli.printing import document, say
from listener.cli.sync import conclude, followed
from listener.vocabulary import PlanKind


def rollback(arguments: argparse.Namespace) -> int:
    """Undo a run, and print the log as it grows; or print what that would do."""
    where = path("runs", arguments.run, "rollback")
    client = connected(arguments)
    if not arguments.dry_run:
        run = client.post(where)
        return conclude(arguments, run if arguments.no_wait else followed(client, run["id"]))
    look = client.post(where, {"dry_run": True})
    if arguments.json:
        document(look)
    else:
        for line in wording.rollback(look):
            say(line)
    legs = look.get("legs", [look])
    return FAILED if any(leg.get("plan", PlanKind.REFUSE) == PlanKind.REFUSE for leg in legs) else DONE
