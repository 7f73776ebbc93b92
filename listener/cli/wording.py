"""The API's documents as text for a person: a run, a plan, a line of a log."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from listener.vocabulary import PlanKind, State

Document = Mapping[str, Any]
"""A JSON object of the API (`listener.web.answers`)."""

COMMIT_SHOWN = 10
"""How many characters of a commit id are shown."""

PATHS_SHOWN = 20
"""How many added, changed and removed paths a dry run lists of each."""

_PLANS = {
    PlanKind.UP_TO_DATE: "is equal to live",
    PlanKind.CREATE: "would be created at live",
    PlanKind.FAST_FORWARD: "would be fast-forwarded to live",
    PlanKind.FORWARD_COMMIT: "would get a forward commit with live's content",
    PlanKind.RESET: "would be moved to live; a backup ref would keep the old commit",
    PlanKind.BUSY: "would wait: Studio is publishing, or has just published",
    PlanKind.REFUSE: "would be refused",
}

_MOVE = ("plan", "live", "old", "new", "backup")
"""The fields of an outcome that say how the branch moved."""

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_FRAME = frozenset({"at", "level", "event", "run", "site", "environment", "host", "removed"})
"""The fields of a log line that are not repeated: the reader knows them. Removed paths are only counted."""


def short(commit: str) -> str:
    """Return enough of a commit id to recognise it; `-` for none."""
    return commit[:COMMIT_SHOWN] or "-"


def moment(at: str | None) -> str:
    """Return a time of the API (RFC 3339, UTC), cut to the second; empty for None."""
    return f"{at[:19].replace('T', ' ')}Z" if at else ""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{number} {noun}s"


def place(document: Document) -> str:
    """Return the site and the environment of a run."""
    return f"{document['site']}/{document['environment']}"


def outcome(run: Document) -> str:
    """Return the outcome of a run in one line."""
    done = run["outcome"] or {}
    if run["state"] != State.SUCCEEDED:
        why = f" ({done['error']})" if done.get("error") else f", run {run['id']}"
        return f"{place(run)}: {run['state']}{why}"
    if "legs" in done:
        moved = sum(leg["moved"] for leg in done["legs"])
        return f"{place(run)}: done on {counted(len(done['legs']), 'repository')}, {moved} moved"
    if done["plan"] == PlanKind.UP_TO_DATE:
        return f"{place(run)}: {done['plan']} at {short(done['new'])}"
    removed = counted(done["removed_count"], "path")
    return f"{place(run)}: {done['plan']}, {short(done['old'])} -> {short(done['new'])}, {removed} removed"


_BACK = {
    PlanKind.UP_TO_DATE: "is already at",
    PlanKind.FORWARD_COMMIT: "would get a forward commit with the content of",
    PlanKind.RESET: "would be moved, with a backup ref for its commit, to",
    PlanKind.BUSY: "would wait for Studio, which publishes or has just published, and then go to",
    PlanKind.REFUSE: "can't go back to",
}


def rollback(look: Document) -> Iterator[str]:
    """Yield the lines that say what a rollback of a run would do now."""
    for leg in look.get("legs", [look]):
        on = f" on {leg['repository']}" if "legs" in look else ""
        if "error" in leg:
            yield f"rollback{on}: not possible now: {leg['message']}"
        else:
            yield f"rollback{on}: the branch {_BACK[PlanKind(leg['plan'])]} {short(leg['target'])}"
            if leg["reason"]:
                yield f"  {leg['reason']}"
        yield from _remedy(leg)
        if "error" not in leg and leg["plan"] != PlanKind.REFUSE:
            yield from _changes(leg)


def plan(where: str, look: Document) -> Iterator[str]:
    """Yield the lines that say what a sync would do now, for each repository if there are several."""
    if "legs" in look:
        for leg in look["legs"]:
            yield from plan(f"{where} on {leg['repository']}", leg)
    elif "error" in look:
        yield f"{where}: can't be checked: {look['message']}"
        yield from _remedy(look)
    else:
        yield from _plan(where, look)


def _plan(where: str, look: Document) -> Iterator[str]:
    kind = PlanKind(look["plan"])
    yield f"{where} {_PLANS[kind]}"
    yield f"  branch {short(look['branch'])}, live {short(look['live'])}"
    if look["reason"]:
        yield f"  {look['reason']}"
    for warning in look["warnings"]:
        yield f"  warning: {warning}"
    yield from _remedy(look)
    if look["equal"] or kind is PlanKind.REFUSE:
        return
    if look["ahead"] is not None:
        yield f"  {counted(look['ahead'], 'commit')} ahead of live, {look['behind']} behind"
    yield from _changes(look)


def _changes(look: Document) -> Iterator[str]:
    for change, verb in (("added", "add"), ("changed", "change"), ("removed", "remove")):
        yield f"  would {verb} {counted(look[f'{change}_count'], 'path')}" + (":" if look[change] else "")
        yield from paths(look, change, PATHS_SHOWN)


def _remedy(look: Document) -> Iterator[str]:
    if look["remedy"]:
        yield f"  remedy: {look['remedy']}"


def paths(document: Document, kind: str, most: int) -> Iterator[str]:
    """Yield paths of one kind, up to `most`, and how many more there are."""
    shown = document[kind][:most]
    yield from (f"    {path}" for path in shown)
    if document[f"{kind}_count"] > len(shown):
        yield f"    … and {document[f'{kind}_count'] - len(shown)} more"


def run(run: Document) -> Iterator[str]:
    """Yield the lines that show a run in full."""
    done = run["outcome"] or {}
    facts = {
        "run": run["id"],
        "environment": place(run),
        "state": run["state"],
        "created": moment(run["created_at"]),
        "started": moment(run["started_at"]),
        "finished": moment(run["finished_at"]),
        "attempts": f"{run['attempt']}, {run['failures']} failed" if run["attempt"] else "",
        "not before": moment(run["not_before"]) if run["state"] == State.QUEUED else "",
        "in the queue": _queue(run),
        "successor": run["successor"],
        "rolls back": run["undoes"],
        **{name: done.get(name) for name in _MOVE},
        **{name: done.get(name) for name in ("error", "message", "remedy")},
        "durations": ", ".join(f"{step} {spent:.3f} s" for step, spent in done.get("durations", {}).items()),
    }
    yield from (f"{name:<12} {value}" for name, value in facts.items() if value)
    yield from (f"{'warning':<12} {warning}" for warning in done.get("warnings", ()))
    for trigger in run["triggers"]:
        yield f"{'asked for':<12} {moment(trigger['at'])} by {asked(trigger)}"
    yield from _removed(done)
    for leg in done.get("legs", ()):
        yield f"{'repository':<12} {leg['repository']}"
        facts = {name: leg[name] for name in (*_MOVE, "error", "message", "remedy")}
        yield from (f"  {name:<10} {value}" for name, value in facts.items() if value)
        yield from _removed(leg)


def asked(trigger: Document) -> str:
    """Return who asked for a sync, from where, with which credential."""
    client = f" from {trigger['client']}" if trigger["client"] else ""
    credential = f", {trigger['credential']}" if trigger["credential"] else ""
    return f"{trigger['actor']}{client} ({trigger['origin']}{credential})"


def delivery(found: Document) -> Iterator[str]:
    """Yield the lines that show a delivery or a refused request in full."""
    facts = {
        "delivery": found["id"],
        "received": moment(found["received_at"]),
        "outcome": found["outcome"] if found["status"] is None else f"{found['outcome']}, {found['status']}",
        "reason": found["reason"],
        "requests": found["count"] if found["count"] > 1 else "",
        "last one": moment(found["last_received_at"]) if found["last_received_at"] else "",
        "hook": found["hook"],
        "request": found["request"],
        "from": found["client"],
        "credential": found["credential"],
        "sender's id": found["sender_id"],
        "event": found["event"],
        "repository": found["repository"],
        "site": found["site"],
        "refs": ", ".join(found["refs"] or ()),
        "size": counted(found["size"], "byte"),
        "digest": found["digest"],
        "same body as": found["same_body_as"],
        "runs": ", ".join(found["runs"]),
    }
    yield from (f"{name:<12} {value}" for name, value in facts.items() if value)
    for again in found["redelivered"]:
        yield f"{'redelivered':<12} {moment(again['at'])} by {asked(again)}, run {again['run']}"
    yield from (f"{'header':<12} {name}: {value}" for name, value in found["headers"].items())


def _queue(run: Document) -> str:
    if "queue" not in run:
        return ""
    ahead = counted(run["queue"]["ahead"], "run")
    return f"{ahead} ahead, expected to start {moment(run['queue']['expected_start'])}"


def _removed(done: Document) -> Iterator[str]:
    if done.get("removed_count"):
        yield f"{'removed':<12} {counted(done['removed_count'], 'path')}"
        yield from paths(done, "removed", len(done["removed"]))


def log_line(text: str) -> str:
    """Return a line of a run's log: its time, its event, its facts."""
    line = json.loads(text)
    facts = [f"{name}={_fact(value)}" for name, value in line.items() if name not in _FRAME and _says(value)]
    mark = "" if line["level"] == "info" else f"{line['level']}: "
    return " ".join([line["at"][11:23], f"{mark}{line['event']}", *facts])


def event_line(text: str) -> str:
    """Return an event: its time, its site and environment, its name, its facts."""
    event = json.loads(text)
    where = f"{event['site']}/{event['environment']} " if event.get("site") else ""
    named = _FRAME - {"run", "host"} | {"id", "kind"} if event["kind"] != "run" else _FRAME | {"id", "kind"}
    facts = [f"{name}={_fact(value)}" for name, value in event.items() if name not in named and _says(value)]
    mark = "" if event["level"] == "info" else f"{event['level']}: "
    kind = "" if event["kind"] in event["event"] else f"{event['kind']} "
    run = f" [{event['run']}]" if event["kind"] == "run" and event.get("run") else ""
    return " ".join([moment(event["at"]), f"{where}{mark}{kind}{event['event']}{run}", *facts])


def _says(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def _fact(value: Any) -> str:
    match value:
        case dict():
            return ",".join(f"{key}:{_fact(each)}" for key, each in value.items())
        case list():
            return ",".join(map(_fact, value))
        case str() if _COMMIT.fullmatch(value):
            return short(value)
        case str() if " " in value:
            return json.dumps(value, ensure_ascii=False)
        case str():
            return value
        case _:
            return json.dumps(value)
