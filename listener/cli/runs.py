"""`runs`: the history, a run's log, and what may be done to a run."""

import argparse
import contextlib
import json
from typing import Any

from listener.cli import wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, RefusedByListenerError
from listener.cli.options import Commands, Handler, add_client, add_command, add_group, add_json, add_page
from listener.cli.printing import document, json_line, say, table, tell
from listener.cli.wording import Document, moment, short
from listener.runs import State

_HEADINGS = ("RUN", "CREATED", "SITE", "ENVIRONMENT", "STATE", "PLAN", "OLD", "NEW", "ERROR")


def add(commands: Commands) -> None:
    """Add the commands."""
    group = add_group(
        commands,
        "runs",
        summary="see the history of runs, and retry or cancel one",
        example="sync-staging runs list --state failed\nsync-staging runs log ID --follow",
    )
    _add_list(group)
    _add_one(group, "show", show, "tell all of one run", "there is no such run")
    _add_log(group)
    _add_one(
        group,
        "retry",
        _asking("retry"),
        "start a new run in the place of one that has failed or was cancelled",
        "there is no such run, or it has not failed",
    )
    _add_one(
        group,
        "cancel",
        _asking("cancel"),
        "end a run whose branch has not moved",
        "there is no such run, it has ended, or its branch has moved already",
    )


def _add_list(group: Commands) -> None:
    parser = add_command(
        group,
        "list",
        list_runs,
        summary="list runs, newest first",
        example="sync-staging runs list --site mysite --environment staging --limit 10",
        done="told, even if there are none",
        failed="there is no such site or environment, or the listener refuses the question",
    )
    parser.add_argument("--site", metavar="SITE", help="only runs of this site")
    parser.add_argument("--environment", metavar="ENVIRONMENT", help="only runs of environments of this name")
    parser.add_argument("--state", choices=[state.value for state in State], help="only runs in this state")
    add_page(parser, "run")
    add_client(parser)
    add_json(parser)


def _add_log(group: Commands) -> None:
    parser = _add_one(
        group, "log", log, "print a run's log", "there is no such run", example="log ID --follow"
    )
    parser.add_argument("--follow", action="store_true", help="go on until the run has ended")


def _add_one(
    group: Commands, name: str, handler: Handler, summary: str, failed: str, example: str = ""
) -> argparse.ArgumentParser:
    parser = add_command(
        group,
        name,
        handler,
        summary=summary,
        example=f"sync-staging runs {example or f'{name} ID'}",
        failed=failed,
    )
    parser.add_argument("run", metavar="ID", help="the run's id")
    add_client(parser)
    add_json(parser, "JSON Lines" if name == "log" else "one JSON document")
    return parser


async def list_runs(arguments: argparse.Namespace) -> int:
    """List runs."""
    async with connected(arguments) as client:
        page = await client.get(
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


async def show(arguments: argparse.Namespace) -> int:
    """Tell all of one run."""
    async with connected(arguments) as client:
        run = await client.get(path("runs", arguments.run))
        back = await _rollback(client, run)
    if arguments.json:
        document(run | {"rollback": back})
    else:
        for line in wording.run(run):
            say(line)
        for line in wording.rollback(back) if back else ():
            say(line)
    return DONE


async def _rollback(client: Client, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a rollback would do, or why there is none; None while the run goes on."""
    if run["finished_at"] is None:
        return None
    try:
        return await client.post(path("runs", run["id"], "rollback"), {"dry_run": True})
    except RefusedByListenerError as error:
        # The run is told all the same: what can't be taken back is no failure of `show`.
        return {"error": error.code, "message": error.message, "remedy": error.remedy}


async def log(arguments: argparse.Namespace) -> int:
    """Print a run's log: what is stored now, or all until the run has ended."""
    async with (
        connected(arguments) as client,
        contextlib.aclosing(client.log(arguments.run, follow=arguments.follow)) as lines,
    ):
        async for line in lines:
            if arguments.json:
                json_line(json.loads(line))
            else:
                say(wording.log_line(line))
    return DONE


def _asking(what: str) -> Handler:
    """Return the handler that asks the listener for something to be done to a run."""

    async def ask(arguments: argparse.Namespace) -> int:
        async with connected(arguments) as client:
            run = await client.post(path("runs", arguments.run, what))
        if arguments.json:
            document(run)
        else:
            say(f"run {run['id']} is {run['state']}")
        return DONE

    return ask


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
