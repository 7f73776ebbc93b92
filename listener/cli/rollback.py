"""`rollback`: taking back what a run did."""

import argparse

from listener.cli import wording
from listener.cli.client import connected, path
from listener.cli.failures import DONE, FAILED
from listener.cli.options import Commands, add_client, add_command, add_json
from listener.cli.printing import document, say
from listener.cli.sync import conclude, followed
from listener.plans import PlanKind


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "rollback",
        rollback,
        summary="move an environment back to where a run had found it; it stays there until live moves",
        example="sync-staging rollback ID --dry-run",
        done="the environment is back, or with --dry-run could be",
        failed="there is no such run, it has nothing to take back, or the branch has moved since",
    )
    parser.add_argument("run", metavar="ID", help="the run's id")
    parser.add_argument("--dry-run", action="store_true", help="tell what it would do, and move nothing")
    parser.add_argument("--no-wait", action="store_true", help="return once the rollback is queued")
    add_client(parser)
    add_json(parser)


async def rollback(arguments: argparse.Namespace) -> int:
    """Take a run back, telling the log as it grows."""
    where = path("runs", arguments.run, "rollback")
    async with connected(arguments) as client:
        if arguments.dry_run:
            look = await client.post(where, {"dry_run": True})
        else:
            run = await client.post(where)
            done = run if arguments.no_wait else await followed(client, run["id"])
    if not arguments.dry_run:
        return conclude(arguments, done)
    if arguments.json:
        document(look)
    else:
        for line in wording.rollback(look):
            say(line)
    legs = look.get("legs", [look])
    return FAILED if any(leg.get("plan", PlanKind.REFUSE) == PlanKind.REFUSE for leg in legs) else DONE
