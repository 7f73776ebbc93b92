"""`tail`, `runs` and `deliveries`."""

import argparse

from listener.cli.options import Commands, add_client, add_command, add_group, add_json, add_page, describe
from listener.vocabulary import EventKind, Fate, State

_NO_RUN = "the run is unknown"


def tail(parser: argparse.ArgumentParser) -> None:
    """Describe `tail`."""
    describe(
        parser,
        "cli.tail:tail",
        example="sync-staging tail\nsync-staging tail mysite staging --kind run --since 2026-01-31T08:00:00Z",
        done="with --no-follow: the events are printed",
        failed="the site or the environment is unknown, or the events after ID are not kept any more",
    )
    parser.add_argument("site", metavar="SITE", nargs="?", help="only events of this site")
    parser.add_argument(
        "environment", metavar="ENVIRONMENT", nargs="?", help="only events of this environment"
    )
    parser.add_argument(
        "--kind",
        action="append",
        choices=[kind.value for kind in EventKind],
        help="only events of this kind; may be given several times",
    )
    parser.add_argument(
        "--since", metavar="TIME", help="begin with the first event since this time (RFC 3339)"
    )
    parser.add_argument(
        "--after", metavar="ID", help="begin after the event with this id; 0 for all events that are kept"
    )
    parser.add_argument(
        "--no-follow", action="store_true", help="print the events that are stored now, and end"
    )
    add_client(parser)
    add_json(parser, "JSON Lines")


def runs(parser: argparse.ArgumentParser) -> None:
    """Describe `runs`."""
    group = add_group(
        parser, example="sync-staging runs list --state failed\nsync-staging runs log ID --follow"
    )
    _list_runs(group)
    _of_run(group, "show", "cli.runs:show", "show one run in full", _NO_RUN)
    log = _of_run(group, "log", "cli.runs:log", "print a run's log", _NO_RUN, example="log ID --follow")
    log.add_argument("--follow", action="store_true", help="continue until the run has ended")
    _of_run(
        group,
        "retry",
        "cli.runs:change",
        "start a new run in place of one that failed or was cancelled",
        f"{_NO_RUN}, or it has not failed",
    )
    _of_run(
        group,
        "cancel",
        "cli.runs:change",
        "cancel a run that has not moved its branch yet",
        f"{_NO_RUN}, it has ended, or it has already moved its branch",
    )


def _list_runs(group: Commands) -> None:
    parser = add_command(
        group,
        "list",
        "cli.runs:list_runs",
        summary="list runs, newest first",
        example="sync-staging runs list --site mysite --environment staging --limit 10",
        done="the list is printed, even if it is empty",
        failed="the site or the environment is unknown, or the listener refuses the request",
    )
    parser.add_argument("--site", metavar="SITE", help="only runs of this site")
    parser.add_argument("--environment", metavar="ENVIRONMENT", help="only runs of environments of this name")
    parser.add_argument("--state", choices=[state.value for state in State], help="only runs in this state")
    add_page(parser, "run")
    add_client(parser)
    add_json(parser)


def _of_run(
    group: Commands, name: str, handler: str, summary: str, failed: str, example: str = ""
) -> argparse.ArgumentParser:
    example = f"sync-staging runs {example or f'{name} ID'}"
    parser = add_command(group, name, handler, summary=summary, example=example, failed=failed)
    parser.add_argument("run", metavar="ID", help="the run's id")
    add_client(parser)
    add_json(parser, "JSON Lines" if name == "log" else "one JSON document")
    return parser


def deliveries(parser: argparse.ArgumentParser) -> None:
    """Describe `deliveries`."""
    group = add_group(
        parser,
        example="sync-staging deliveries list --outcome refused\nsync-staging deliveries redeliver ID",
    )
    _list_deliveries(group)
    _of_delivery(
        group,
        "show",
        "show one delivery, or one refused request, in full",
        "the delivery or the refused request is unknown",
    )
    _of_delivery(
        group,
        "redeliver",
        "start the syncs that a delivery asks for, as the configuration is now",
        "the delivery is unknown, it was refused, or it asks for no sync",
    )


def _list_deliveries(group: Commands) -> None:
    parser = add_command(
        group,
        "list",
        "cli.deliveries:list_deliveries",
        summary="list deliveries and refused requests, newest first",
        example="sync-staging deliveries list --hook forge --outcome refused --limit 10",
        done="the list is printed, even if it is empty",
        failed="the hook is unknown, or the listener refuses the request",
    )
    parser.add_argument("--hook", metavar="HOOK", help="only deliveries to this hook")
    parser.add_argument(
        "--outcome", choices=[fate.value for fate in Fate], help="only deliveries with this outcome"
    )
    add_page(parser, "delivery")
    add_client(parser)
    add_json(parser)


def _of_delivery(group: Commands, name: str, summary: str, failed: str) -> None:
    example = f"sync-staging deliveries {name} ID"
    parser = add_command(
        group, name, f"cli.deliveries:{name}", summary=summary, example=example, failed=failed
    )
    parser.add_argument(
        "delivery", metavar="ID", help="the delivery's id, or the X-Delivery-Id of a refused request"
    )
    add_client(parser)
    add_json(parser)
