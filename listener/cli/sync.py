"""`sync`: make one environment equal to live."""

import argparse
from importlib import import_module
from typing import Any

from listener.cli import wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, FAILED, RunFailedError
from listener.cli.printing import document, note, say
from listener.redaction import Cleaner
from listener.vocabulary import PlanKind, State


def sync(arguments: argparse.Namespace) -> int:
    """Sync, or print what a sync would do."""
    done = _locally(arguments) if arguments.local else _by_listener(arguments)
    if arguments.dry_run:
        return _print_plan(arguments, done)
    return conclude(arguments, done)


def _locally(arguments: argparse.Namespace) -> dict[str, Any]:
    # Only this sync needs the whole listener in this process.
    done: dict[str, Any] = import_module("listener.cli.local").synced(arguments)
    return done


def _by_listener(arguments: argparse.Namespace) -> dict[str, Any]:
    where = path("sites", arguments.site, "environments", arguments.environment, "sync")
    client = connected(arguments)
    if arguments.dry_run:
        return client.post(where, {"dry_run": True})
    run = client.post(where)
    return run if arguments.no_wait else followed(client, run["id"])


def followed(client: Client, run_id: str) -> dict[str, Any]:
    """Print the log of a run and of its successors as they grow; return the last run."""
    while True:
        for line in client.log(run_id, follow=True):
            note(wording.log_line(line))
        run = client.get(path("runs", run_id))
        if run["state"] != State.SUPERSEDED:
            return run
        run_id = run["successor"]


def _print_plan(arguments: argparse.Namespace, look: dict[str, Any]) -> int:
    if arguments.json:
        document(look)
    else:
        for line in wording.plan(f"{arguments.site}/{arguments.environment}", look):
            say(line)
    refused = [leg for leg in look.get("legs", [look]) if leg.get("plan", PlanKind.REFUSE) == PlanKind.REFUSE]
    return FAILED if refused else DONE


def conclude(arguments: argparse.Namespace, run: dict[str, Any]) -> int:
    """Print the outcome of a run; raise `RunFailedError` if it failed."""
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
        remedy=clean(outcome.get("remedy") or f"run sync-staging runs show {run['id']} for details"),
    )
