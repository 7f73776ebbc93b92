"""`runs`: the history, a run's log, and what may be done to a run."""

import argparse
import json
from typing import Any

from listener.cli import wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, RefusedByListenerError
from listener.cli.printing import document, json_line, say, table, tell
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
        before=arguments.before,
    )
    if arguments.json:
        document(page)
        return DONE
    table(_HEADINGS, map(_row, page["runs"]))
    if page["before"]:
        tell(f"older runs: --before {page['before']}")
    return DONE


def show(arguments: argparse.Namespace) -> int:
    """Tell all of one run."""
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
    """Return what a rollback would do, or why there is none; None while the run goes on."""
    if run["finished_at"] is None:
        return None
    try:
        return client.post(path("runs", run["id"], "rollback"), {"dry_run": True})
    except RefusedByListenerError as error:
        # The run is told all the same: what can't be taken back is no failure of `show`.
        return {"error": error.code, "message": error.message, "remedy": error.remedy}


def log(arguments: argparse.Namespace) -> int:
    """Print a run's log: what is stored now, or all until the run has ended."""
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
