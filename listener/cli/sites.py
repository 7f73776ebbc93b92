"""`status`, `hold` and `release`: how environments stand, and freezing them."""

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE
from listener.cli.options import Commands, add_client, add_command, add_json, add_target
from listener.cli.printing import document, say, table
from listener.cli.wording import Document, moment, short
from listener.plans import PlanKind

_HEADINGS = ("SITE", "ENVIRONMENT", "STATE", "LIVE", "BRANCH", "REMOVES", "HOLD", "LAST SUCCESS")


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_status(commands)
    _add_hold(commands)
    _add_release(commands)


def _add_status(commands: Commands) -> None:
    parser = add_command(
        commands,
        "status",
        status,
        summary="show how every environment stands to live, or those of one site",
        example="sync-staging status mysite",
        done="told, whether or not environments differ from live",
        failed="there is no such site",
    )
    parser.add_argument("site", metavar="SITE", nargs="?", help="the site's id (default: all sites)")
    add_client(parser)
    add_json(parser)


def _add_hold(commands: Commands) -> None:
    parser = add_command(
        commands,
        "hold",
        hold,
        summary="freeze an environment: nothing syncs it until it is released",
        example='sync-staging hold mysite staging --reason "acceptance test until Friday"',
        done="the environment is on hold",
        failed="there is no such site or environment, or the reason is refused",
    )
    add_target(parser)
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why, for those who wonder")
    add_client(parser)
    add_json(parser)


def _add_release(commands: Commands) -> None:
    parser = add_command(
        commands,
        "release",
        release,
        summary="let an environment go that is on hold; one that follows live is synced",
        example="sync-staging release mysite staging",
        done="the environment is not on hold",
        failed="there is no such site or environment",
    )
    add_target(parser)
    add_client(parser)
    add_json(parser)


async def status(arguments: argparse.Namespace) -> int:
    """Show how environments stand."""
    async with connected(arguments) as client:
        found = await (client.get(path("sites", arguments.site)) if arguments.site else _all(client))
    if arguments.json:
        document(found)
        return DONE
    stands = [
        (site["site"], environment)
        for site in found.get("sites", [found])
        for environment in site["environments"]
    ]
    table(_HEADINGS, (row for site, environment in stands for row in _rows(site, environment)))
    for each in found.get("unlisted", ()):
        say(f"{each['pattern']}: its sites can't be listed: {each['message']}")
    for line in (line for site, environment in stands for line in _remarks(site, environment)):
        say(line)
    return DONE


async def _all(client: Client) -> dict[str, Any]:
    """Return every site, and the patterns whose sites can't be listed."""
    sites: list[Document] = []
    unlisted: dict[str, Document] = {}
    async with contextlib.aclosing(client.pages(path("sites"))) as pages:
        async for page in pages:
            sites += page["sites"]
            unlisted |= {each["pattern"]: each for each in page.get("unlisted", ())}
    return {"sites": sites, **({"unlisted": list(unlisted.values())} if unlisted else {})}


async def hold(arguments: argparse.Namespace) -> int:
    """Freeze an environment."""
    answer = await _ask(arguments, "hold", {"reason": arguments.reason})
    if arguments.json:
        document(answer)
    else:
        say(f"{arguments.site}/{arguments.environment} is on hold: {answer['hold']['reason']}")
    return DONE


async def release(arguments: argparse.Namespace) -> int:
    """Let an environment go."""
    answer = await _ask(arguments, "release", None)
    if arguments.json:
        document(answer)
        return DONE
    where = f"{arguments.site}/{arguments.environment}"
    say(f"{where} is released" if answer["released"] else f"{where} was not on hold")
    for run in answer["runs"]:
        say(f"run {run} catches up with live")
    return DONE


async def _ask(arguments: argparse.Namespace, what: str, body: dict[str, Any] | None) -> dict[str, Any]:
    async with connected(arguments) as client:
        return await client.post(
            path("sites", arguments.site, "environments", arguments.environment, what), body
        )


def _rows(site: str, environment: Document) -> Iterator[tuple[str, ...]]:
    """Yield a row for the environment, or for each of its repositories."""
    last = environment["last_success"]
    for on, drift in _drifts(environment):
        yield (
            site,
            environment["name"] + on,
            _state(drift),
            short(drift.get("live", "")),
            short(drift.get("branch", "")),
            str(drift.get("removed_count") or ""),
            "yes" if environment["hold"] else "",
            moment(last["at"]) if last else "",
        )


def _drifts(environment: Document) -> Iterator[tuple[str, Document]]:
    """Yield the drift of the only repository, or of each of several behind its name."""
    drift = environment["drift"]
    if "legs" not in drift:
        yield "", drift
    for leg in drift.get("legs", ()):
        yield f" on {leg['repository']}", leg


def _state(drift: Document) -> str:
    if "error" in drift:
        return f"error: {drift['error']}"
    if drift["equal"]:
        return "equal"
    if drift["plan"] in {PlanKind.BUSY, PlanKind.REFUSE}:
        return str(drift["plan"])
    return f"differs: {drift['plan']}"


def _remarks(site: str, environment: Document) -> Iterator[str]:
    """Yield what has no room in the table: why an environment can't be told or synced, why it is on hold."""
    where, hold = f"{site}/{environment['name']}", environment["hold"]
    for on, drift in _drifts(environment):
        why = drift.get("message") or drift.get("reason")
        if why:
            yield f"{where}{on}: {why}"
            if drift.get("remedy"):
                yield f"  remedy: {drift['remedy']}"
        yield from (f"{where}{on}: warning: {warning}" for warning in drift.get("warnings", ()))
    if hold:
        yield f"{where}: on hold by {hold['actor']} since {moment(hold['since'])}: {hold['reason']}"
