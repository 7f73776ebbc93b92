"""The last look at each environment: written in batches, shared by all listeners."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from listener.events import EventKind, Happened
from listener.looks import EnvironmentLook, LegLook, LookState, LookSummary, Place
from listener.observations import Paths
from listener.plans import PlanKind
from listener.store.rows import Row
from listener.store.transaction import Reader, Transaction

CLAIM = ("looks", "")
"""The key of every write of looks: without it, two listeners could lock the same rows in two orders."""

# A stored time that is far ahead comes from a wrong clock. It must not keep later looks out for ever.
_KEEP = """
INSERT INTO looks (site, environment, looked_at, state, plan, error, message, busy_since, legs)
VALUES (:site, :environment, :looked_at, :state, :plan, :error, :message, :busy_since, :legs)
ON CONFLICT (site, environment) DO UPDATE SET
    looked_at = excluded.looked_at, state = excluded.state, plan = excluded.plan, error = excluded.error,
    message = excluded.message, busy_since = excluded.busy_since, legs = excluded.legs
WHERE excluded.looked_at >= looks.looked_at OR looks.looked_at > excluded.looked_at + 600
"""
_AT_PLACES = """
FROM unnest(:places::text[]) AS p (place) CROSS JOIN looks AS l
WHERE l.site = p.place::json ->> 0 AND l.environment = p.place::json ->> 1
"""
_FIND = f"SELECT l.site, l.environment, l.looked_at, l.legs {_AT_PLACES}"
_STATES = f"SELECT l.site, l.environment, l.looked_at, l.state, l.error {_AT_PLACES}"
_SUMMARIES = """
SELECT site, environment, looked_at, state, plan, error, message, busy_since FROM looks
ORDER BY site, environment
"""
_FORGET = "DELETE FROM looks WHERE site = :site AND environment = ANY (:environments::text[])"

_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in (LegLook, Paths)}


async def keep(transaction: Transaction, looks: Sequence[EnvironmentLook]) -> None:
    """Carry out `LookStore.keep_looks`."""
    # One statement of PostgreSQL can't change a row twice.
    newest = {look.place: look for look in sorted(looks, key=lambda look: look.looked_at)}
    rows = await transaction.all(_STATES, _at(newest))
    before = {(row["site"], row["environment"]): row for row in rows}
    for place, look in newest.items():
        transaction.happened += _changed(before.get(place), look)
    await transaction.many(_KEEP, [_row_of(newest[place]) for place in sorted(newest)])


def _changed(before: Row | None, look: EnvironmentLook) -> list[Happened]:
    """Return the event of a look that found another state than the look before; else nothing."""
    now = _storable(look.summary)
    if before is None:
        if now.state is LookState.EQUAL:
            return []
    elif before["looked_at"] > now.looked_at or (before["state"], before["error"]) == (now.state, now.error):
        return []
    facts = {"state": now.state.value, "plan": now.plan, "error": now.error, "message": now.message}
    said = {name: value for name, value in facts.items() if value}
    level = "warning" if now.state is LookState.UNKNOWN else "info"
    where = look.site, look.environment
    return [Happened.saying(EventKind.LOOK, now.looked_at, "look", *where, level=level, **said)]


async def find(reader: Reader, places: Collection[Place]) -> dict[Place, EnvironmentLook]:
    """Carry out `LookStore.looks`."""
    return {look.place: look for look in map(_look_of, await reader.all(_FIND, _at(places)))}


def _at(places: Iterable[Place]) -> dict[str, Any]:
    """Return the values of `_AT_PLACES`."""
    return {"places": [json.dumps(place) for place in places]}


async def summaries(reader: Reader) -> list[LookSummary]:
    """Carry out `LookStore.look_summaries`."""
    return [_summary_of(row) for row in await reader.all(_SUMMARIES)]


async def forget(transaction: Transaction, places: Collection[Place]) -> None:
    """Carry out `LookStore.forget_looks`."""
    names: dict[str, list[str]] = {}
    for site, name in sorted(places):
        names.setdefault(site, []).append(name)
    for site, environments in names.items():
        await transaction.write(_FORGET, {"site": site, "environments": environments})


def _storable(summary: LookSummary) -> LookSummary:
    """Return a summary whose message is UTF-8: it may name a file whose name is not."""
    return replace(summary, message=summary.message.encode("utf-8", "backslashreplace").decode())


def _row_of(look: EnvironmentLook) -> dict[str, Any]:
    summary = _storable(look.summary)
    return {
        "site": look.site,
        "environment": look.environment,
        "looked_at": look.looked_at,
        "state": summary.state.value,
        "plan": summary.plan.value if summary.plan else "",
        "error": summary.error,
        "message": summary.message,
        "busy_since": summary.busy_since,
        "legs": _ENCODER.encode(look.legs),
    }


def _summary_of(row: Row) -> LookSummary:
    values: dict[str, Any] = dict(row)
    values["state"], values["plan"] = _state_of(values["state"]), _plan_of(values["plan"])
    return LookSummary(**values)


def _look_of(row: Row) -> EnvironmentLook:
    legs = tuple(map(_leg_of, json.loads(row["legs"])))
    return EnvironmentLook(row["site"], row["environment"], row["looked_at"], legs)


def _leg_of(values: dict[str, Any]) -> LegLook:
    """Return a leg of a stored look. Unknown fields, of another version of the program, are left out.

    Unknown states and plans are read as unknown: they must not keep this version from starting.
    """
    known = {name: value for name, value in values.items() if name in _NAMES[LegLook]}
    known["state"], known["plan"] = _state_of(known.get("state")), _plan_of(known.get("plan"))
    known["warnings"] = tuple(known.get("warnings", ()))
    for name in ("added", "changed", "removed"):
        known[name] = _paths_of(known.get(name, {}))
    return LegLook(**known)


def _state_of(text: str | None) -> LookState:
    return next((each for each in LookState if each == text), LookState.UNKNOWN)


def _plan_of(text: str | None) -> PlanKind | None:
    return next((each for each in PlanKind if each == text), None)


def _paths_of(values: dict[str, Any]) -> Paths:
    return Paths(values.get("count", 0), tuple(values.get("listed", ())))


def _stored(value: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults, so that most looks are short."""
    blank = _BLANK[type(value)]
    found = {name: getattr(value, name) for name in _NAMES[type(value)]}
    return {name: each for name, each in found.items() if each != getattr(blank, name)}


_BLANK: dict[type, Any] = {LegLook: LegLook("", ""), Paths: Paths()}
_ENCODER = json.JSONEncoder(default=_stored)
