"""`deliveries`: what arrived, what became of it, and letting it count once more."""

import argparse

from listener.cli import wording
from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE, RefusedByListenerError
from listener.cli.options import (
    Commands,
    Handler,
    add_client,
    add_command,
    add_group,
    add_json,
    add_page,
)
from listener.cli.printing import document, say, table, tell
from listener.cli.wording import Document, moment
from listener.records import Fate

_HEADINGS = ("DELIVERY", "RECEIVED", "HOOK", "FROM", "OUTCOME", "WHAT")


def add(commands: Commands) -> None:
    """Add the commands."""
    group = add_group(
        commands,
        "deliveries",
        summary="see what arrived and what became of it, what was refused included (for admins)",
        example="sync-staging deliveries list --outcome refused\nsync-staging deliveries redeliver ID",
    )
    _add_list(group)
    _add_one(group, "show", show, "tell all of one delivery, or of one refused request", "there is none")
    _add_one(
        group,
        "redeliver",
        redeliver,
        "select again what a delivery asked for, by today's configuration, and start it",
        "there is no such delivery, it was refused, or it selects nothing",
    )


def _add_list(group: Commands) -> None:
    parser = add_command(
        group,
        "list",
        list_deliveries,
        summary="list what arrived, newest first",
        example="sync-staging deliveries list --hook forge --outcome refused --limit 10",
        done="told, even if there are none",
        failed="there is no such hook, or the listener refuses the question",
    )
    parser.add_argument("--hook", metavar="HOOK", help="only what came to this hook")
    parser.add_argument("--outcome", choices=[fate.value for fate in Fate], help="only what ended so")
    add_page(parser, "delivery")
    add_client(parser)
    add_json(parser)


def _add_one(group: Commands, name: str, handler: Handler, summary: str, failed: str) -> None:
    parser = add_command(
        group, name, handler, summary=summary, example=f"sync-staging deliveries {name} ID", failed=failed
    )
    parser.add_argument("delivery", metavar="ID", help="the delivery's id, or the X-Delivery-Id of an answer")
    add_client(parser)
    add_json(parser)


async def list_deliveries(arguments: argparse.Namespace) -> int:
    """List what arrived."""
    async with connected(arguments) as client:
        page = await client.get(
            path("deliveries"),
            hook=arguments.hook,
            outcome=arguments.outcome,
            limit=arguments.limit,
            before=arguments.before,
        )
        if arguments.hook and not page["deliveries"]:
            await _demand_hook(client, arguments.hook)
    if arguments.json:
        document(page)
        return DONE
    table(_HEADINGS, map(_row, page["deliveries"]))
    if page["before"]:
        tell(f"older ones: --before {page['before']}")
    return DONE


async def _demand_hook(client: Client, name: str) -> None:
    """Raise `RefusedByListenerError` for a hook that there is not: a misspelt name is no empty history."""
    known = [hook["name"] for hook in (await client.get(path("hooks")))["hooks"]]
    if name not in known:
        raise RefusedByListenerError(
            "There is no such hook.", remedy=f"name a configured one: {', '.join(known) or 'none'}"
        )


async def show(arguments: argparse.Namespace) -> int:
    """Tell all of one."""
    async with connected(arguments) as client:
        found = await client.get(path("deliveries", arguments.delivery))
    if arguments.json:
        document(found)
    else:
        for line in wording.delivery(found):
            say(line)
    return DONE


async def redeliver(arguments: argparse.Namespace) -> int:
    """Let a delivery count once more."""
    async with connected(arguments) as client:
        answer = await client.post(path("deliveries", arguments.delivery, "redeliver"))
    if arguments.json:
        document(answer)
    else:
        say(f"delivery {answer['delivery']} is run {', '.join(answer['runs'])}")
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
