"""`status`, `hold` and `release`: how environments differ from live, and freezing them."""

import argparse
from collections.abc import Iterator
from typing import Any

from listener.cli.client import Client, connected, path
from listener.cli.failures import DONE
from listener.cli.printing import document, say, table
from listener.cli.wording import Document, moment, short
from listener.vocabulary import NOT_LOOKED_AT, PlanKind

_HEADINGS = ("SITE", "ENVIRONMENT", "STATE", "LIVE", "BRANCH", "REMOVES", "HOLD", "LAST SUCCESS", "LOOKED AT")

FRESH_AT_ONCE = 50
"""Sites on one page of fresh looks: a host can answer for so many in time."""


def status(arguments: argparse.Namespace) -> int:
    """Show how environments differ from live."""
    client, fresh = connected(arguments), arguments.fresh
    query = {"fresh": "true"} if fresh else {}
    where = path("sites", arguments.site) if arguments.site else path("sites")
    found = client.get(where, **query) if arguments.site else _all(client, fresh=fresh)
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
        say(f"{each['pattern']}: can't list the sites of this pattern now: {each['message']}")
    for line in (line for site, environment in stands for line in _remarks(site, environment)):
        say(line)
    return DONE


def _all(client: Client, *, fresh: bool) -> dict[str, Any]:
    """Return every site, and the patterns whose hosts do not answer."""
    sites: list[Document] = []
    unlisted: dict[str, Document] = {}
    query = {"fresh": "true", "limit": FRESH_AT_ONCE} if fresh else {}
    for page in client.pages(path("sites"), **query):
        sites += page["sites"]
        unlisted |= {each["pattern"]: each for each in page.get("unlisted", ())}
    return {"sites": sites, **({"unlisted": list(unlisted.values())} if unlisted else {})}


def hold(arguments: argparse.Namespace) -> int:
    """Put an environment on hold."""
    answer = _ask(arguments, "hold", {"reason": arguments.reason})
    if arguments.json:
        document(answer)
    else:
        say(f"{arguments.site}/{arguments.environment} is on hold: {answer['hold']['reason']}")
    return DONE


def release(arguments: argparse.Namespace) -> int:
    """Release an environment."""
    answer = _ask(arguments, "release", None)
    if arguments.json:
        document(answer)
        return DONE
    where = f"{arguments.site}/{arguments.environment}"
    say(f"{where} is released" if answer["released"] else f"{where} was not on hold")
    for run in answer["runs"]:
        say(f"run {run} syncs it with live")
    return DONE


def _ask(arguments: argparse.Namespace, what: str, body: dict[str, Any] | None) -> dict[str, Any]:
    where = path("sites", arguments.site, "environments", arguments.environment, what)
    return connected(arguments).post(where, body)


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
            _looked_at(environment),
        )


def _looked_at(environment: Document) -> str:
    """Return when the last look was. Listeners of earlier versions do not answer it: they look each time."""
    at = environment.get("looked_at")
    return (moment(at) if at else "never") + (" (late)" if environment.get("late") else "")


def _drifts(environment: Document) -> Iterator[tuple[str, Document]]:
    """Yield the drift of the only repository, or of each of several behind its name."""
    drift = environment["drift"]
    if "legs" not in drift:
        yield "", drift
    for leg in drift.get("legs", ()):
        yield f" on {leg['repository']}", leg


def _state(drift: Document) -> str:
    if "error" in drift:
        return "unknown" if drift["error"] == NOT_LOOKED_AT else f"error: {drift['error']}"
    if drift["equal"]:
        return "equal"
    if drift["plan"] in {PlanKind.BUSY, PlanKind.REFUSE}:
        return str(drift["plan"])
    return f"differs: {drift['plan']}"


def _remarks(site: str, environment: Document) -> Iterator[str]:
    """Yield what the table has no room for: errors, warnings, and the reason of a hold."""
    where, hold = f"{site}/{environment['name']}", environment["hold"]
    for on, drift in _drifts(environment):
        why = drift.get("message") or drift.get("reason")
        if why and drift.get("error") != NOT_LOOKED_AT:
            yield f"{where}{on}: {why}"
            if drift.get("remedy"):
                yield f"  remedy: {drift['remedy']}"
        yield from (f"{where}{on}: warning: {warning}" for warning in drift.get("warnings", ()))
    if hold:
        yield f"{where}: on hold by {hold['actor']} since {moment(hold['since'])}: {hold['reason']}"
