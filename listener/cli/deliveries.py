"""`deliveries`: what arrived, what became of it, and redelivering it."""

import argparse

from listener.cli import wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, RefusedByListenerError
from listener.cli.printing import document, note, say, table
from listener.cli.wording import Document, moment

_HEADINGS = ("DELIVERY", "RECEIVED", "HOOK", "FROM", "OUTCOME", "WHAT")


def list_deliveries(arguments: argparse.Namespace) -> int:
    """List deliveries and refused requests."""
    client = connected(arguments)
    page = client.get(
        path("deliveries"),
        hook=arguments.hook,
        outcome=arguments.outcome,
        limit=arguments.limit,
        after=arguments.before,
    )
    if arguments.hook and not page["deliveries"]:
        _demand_hook(client, arguments.hook)
    if arguments.json:
        document(page)
        return DONE
    table(_HEADINGS, map(_row, page["deliveries"]))
    if page["next"]:
        note(f"older ones: --before {page['next']}")
    return DONE


def _demand_hook(client: Client, name: str) -> None:
    """Raise `RefusedByListenerError` for an unknown hook: a misspelt name is not an empty list."""
    known = [hook["name"] for hook in client.get(path("hooks"))["hooks"]]
    if name not in known:
        raise RefusedByListenerError(
            "Unknown hook.", remedy=f"name a configured one: {', '.join(known) or 'none'}"
        )


def show(arguments: argparse.Namespace) -> int:
    """Show one delivery or refused request in full."""
    found = connected(arguments).get(path("deliveries", arguments.delivery))
    if arguments.json:
        document(found)
    else:
        for line in wording.delivery(found):
            say(line)
    return DONE


def redeliver(arguments: argparse.Namespace) -> int:
    """Redeliver a delivery."""
    answer = connected(arguments).post(path("deliveries", arguments.delivery, "redeliver"))
    if arguments.json:
        document(answer)
    else:
        say(f"delivery {answer['delivery']} started run {', '.join(answer['runs'])}")
    return DONE


def _row(found: Document) -> tuple[str, ...]:
    what = found["reason"] or f"run {', '.join(found['runs'])}"
    if not found["hook"]:
        what = f"{found['request']}: {what}"
    return (
        found["id"],
        moment(found["received_at"]),
        found["hook"],
        found["client"],
        found["outcome"],
        what if found["count"] == 1 else f"{found['count']} requests: {what}",
    )
