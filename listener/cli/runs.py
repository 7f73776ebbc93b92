"""`runs`: the history of runs, a run's log, retrying and cancelling."""

import argparse
import json
from typing import Any

from listener.cli import wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, RefusedByListenerError
from listener.cli.printing import document, json_line, note, say, table
from listener.cli.wording import Document, moment, short

_HEADINGS = ("RUN", "CREATED", "SITE", "ENVIRONMENT", "STATE", "PLAN", "OLD", "NEW", "ERROR")


def list_runs(arguments: argparse.Namespace) -> int:
    """List runs."""
    page = connected(arguments).get(
        path("runs"),
        site=arguments.site,
        environment=arguments.environment,
        state=arguments.state,
        limit=arguments.limit,
        after=arguments.before,
    )
    if arguments.json:
        document(page)
        return DONE
    table(_HEADINGS, map(_row, page["runs"]))
    if page["next"]:
        note(f"older runs: --before {page['next']}")
    return DONE


def show(arguments: argparse.Namespace) -> int:
    """Show one run in full, and what a rollback of it would do."""
    client = connected(arguments)
    run = client.get(path("runs", arguments.run))
    back = _rollback(client, run)
    if arguments.json:
        document(run | {"rollback": back})
    else:
        for line in wording.run(run):
            say(line)
        for line in wording.rollback(back) if back else ():
            say(line)
    return DONE


def _rollback(client: Client, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a rollback would do, or why it is not possible; None until the run has ended."""
    if run["finished_at"] is None:
        return None
    try:
        return client.post(path("runs", run["id"], "rollback"), {"dry_run": True})
    except RefusedByListenerError as error:
        # `show` has not failed: it shows a run that can't be rolled back, too.
        return {"error": error.code, "message": error.message, "remedy": error.remedy}


def log(arguments: argparse.Namespace) -> int:
    """Print a run's log: the lines stored now, or with --follow all lines until the run has ended."""
    for line in connected(arguments).log(arguments.run, follow=arguments.follow):
        if arguments.json:
            json_line(json.loads(line))
        else:
            say(wording.log_line(line))
    return DONE


def change(arguments: argparse.Namespace) -> int:
    """Retry or cancel a run, as the command is called."""
    run = connected(arguments).post(path("runs", arguments.run, arguments.action))
    if arguments.json:
        document(run)
    else:
        say(f"run {run['id']} is {run['state']}")
    return DONE


def _row(run: Document) -> tuple[str, ...]:
    done = run["outcome"] or {}
    return (
        run["id"],
        moment(run["created_at"]),
        run["site"],
        run["environment"],
        run["state"],
        done.get("plan", ""),
        short(done.get("old", "")),
        short(done.get("new", "")),
        done.get("error", ""),
    )
