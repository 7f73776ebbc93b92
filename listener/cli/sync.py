"""`sync`: make one environment equal to live."""

import argparse
import contextlib
from typing import Any

from listener.cli import local, wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, FAILED, RunFailedError
from listener.cli.options import Commands, add_client, add_command, add_json, add_target
from listener.cli.printing import document, say, tell
from listener.plans import PlanKind
from listener.redaction import Cleaner
from listener.runs import State


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "sync",
        sync,
        summary="make one environment of a site equal to live, and follow it to its end",
        example="sync-staging sync mysite staging --dry-run\nsync-staging sync mysite staging",
        done="the environment is equal to live; or the plan is told; or, with --no-wait, the run is queued",
        failed="the sync failed, was refused or cancelled, or would be refused",
    )
    add_target(parser)
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and move nothing")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--local", action="store_true", help="do it in this process, where no listener runs")
    way.add_argument("--no-wait", action="store_true", help="return as soon as the run is queued")
    add_client(parser)
    add_json(parser)


async def sync(arguments: argparse.Namespace) -> int:
    """Sync, or tell what a sync would do."""
    done = await (_locally(arguments) if arguments.local else _by_listener(arguments))
    if arguments.dry_run:
        return _tell_plan(arguments, done)
    return conclude(arguments, done)


async def _locally(arguments: argparse.Namespace) -> dict[str, Any]:
    settings = local.settings_of(arguments)
    environment = settings.sites.environment(arguments.site, arguments.environment)
    return await (local.look if arguments.dry_run else local.sync)(settings, environment)


async def _by_listener(arguments: argparse.Namespace) -> dict[str, Any]:
    where = path("sites", arguments.site, "environments", arguments.environment, "sync")
    async with connected(arguments) as client:
        if arguments.dry_run:
            return await client.post(where, {"dry_run": True})
        run = await client.post(where)
        return run if arguments.no_wait else await followed(client, run["id"])


async def followed(client: Client, run_id: str) -> dict[str, Any]:
    """Tell a run's log, and its successors', as they grow; return the run that was the last."""
    while True:
        async with contextlib.aclosing(client.log(run_id, follow=True)) as lines:
            async for line in lines:
                tell(wording.log_line(line))
        run = await client.get(path("runs", run_id))
        if run["state"] != State.SUPERSEDED:
            return run
        run_id = run["successor"]


def _tell_plan(arguments: argparse.Namespace, look: dict[str, Any]) -> int:
    if arguments.json:
        document(look)
    else:
        for line in wording.plan(f"{arguments.site}/{arguments.environment}", look):
            say(line)
    refused = [leg for leg in look.get("legs", [look]) if leg.get("plan", PlanKind.REFUSE) == PlanKind.REFUSE]
    return FAILED if refused else DONE


def conclude(arguments: argparse.Namespace, run: dict[str, Any]) -> int:
    """Tell what became of a run; raise `RunFailedError` if it failed."""
    if arguments.json:
        document(run)
    elif arguments.no_wait:
        say(f"{wording.place(run)}: {run['state']}, run {run['id']}")
    else:
        say(wording.outcome(run))
    unended = {State.QUEUED, State.RUNNING} if arguments.no_wait else set()
    if run["state"] in {State.SUCCEEDED} | unended:
        return DONE
    clean, outcome = Cleaner(), run["outcome"] or {}
    raise RunFailedError(
        clean(outcome.get("message") or f"The run {run['id']} is {run['state']}."),
        remedy=clean(outcome.get("remedy") or f"sync-staging runs show {run['id']} tells more"),
    )
