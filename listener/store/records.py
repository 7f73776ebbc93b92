"""Records of requests and of used credentials: written together, read page by page."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from listener.errors import DeliveryNotFoundError
from listener.events import EventKind, Happened
from listener.records import Arrival, ArrivalFilter, Fate, Refusal, ServedTrigger, Use
from listener.store.rows import Row, arrival_of, served_of
from listener.store.transaction import Reader, Transaction

CLAIM = ("records", "")
"""A write of records has this to itself. Two listeners could lock the same rows in two orders."""

TOLD_AT_ONCE = 10
"""The most refusals of one write that get an event each."""

_REFUSAL = """
INSERT INTO refusals
    (id, at, request, reason, status, client, credential, hook, size, digest, headers, count)
VALUES
    (:id, :at, :request, :reason, :status, :client, :credential, :hook, :size, :digest, :headers, :count)
ON CONFLICT (id) DO NOTHING
"""
_NEWEST = """
DELETE FROM refusals WHERE id <= (SELECT id FROM refusals ORDER BY id DESC LIMIT 1 OFFSET :keep)
"""
_USE = """
INSERT INTO uses (kind, owner, name, count, last) VALUES (:kind, :owner, :name, :count, :last)
ON CONFLICT (kind, owner, name) DO UPDATE SET
    count = uses.count + excluded.count, last = greatest(uses.last, excluded.last)
"""
_SAME_BODY = """
(SELECT e.id FROM deliveries AS e
 WHERE e.hook = a.hook AND e.digest = a.digest AND e.id < a.id AND a.digest <> '' AND a.fate <> 'refused'
 ORDER BY e.id DESC LIMIT 1) AS same_body
"""
# Each fate has its own index. So a page does not read the rows of earlier pages again.
_TABLES = {Fate.ACCEPTED: "taken", Fate.IGNORED: "taken", Fate.REFUSED: "refused"}
_CONDITIONS = {Fate.ACCEPTED: "AND reason = ''", Fate.IGNORED: "AND reason <> ''", Fate.REFUSED: ""}
_SOME = """
SELECT * FROM (
    SELECT * FROM {0} WHERE id < :before {1} {2} ORDER BY id DESC LIMIT :limit
) AS {3}
"""
_PAGE = f"""
SELECT a.*, {_SAME_BODY} FROM ({{0}} ORDER BY id DESC LIMIT :limit) AS a ORDER BY a.id DESC
"""  # noqa: S608 (ours)
_ONE = f"""
SELECT a.*, {_SAME_BODY} FROM (
    SELECT * FROM taken WHERE id = :id UNION ALL SELECT * FROM refused WHERE id = :id
) AS a
"""  # noqa: S608 (ours)
_SERVED = "SELECT * FROM triggers WHERE delivery = ANY (:deliveries::text[]) ORDER BY position"
_USES = "SELECT * FROM uses ORDER BY kind, owner, name"
_BEYOND = "~"
"""It sorts behind every id."""


async def record(
    transaction: Transaction, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int
) -> None:
    """Carry out `Records.record`."""
    if refusals:
        rows = [asdict(each) | {"headers": json.dumps(dict(each.headers))} for each in refusals]
        await transaction.many(_REFUSAL, rows)
        await transaction.write(_NEWEST, {"keep": keep})
        transaction.happened += _events_of(refusals)
    if uses:
        await transaction.many(_USE, [asdict(use) for use in uses])


def _events_of(refusals: Sequence[Refusal]) -> list[Happened]:
    """Return an event for each of the first, and one for all others, so that a flood stays small."""
    happened = list(map(_event_of, refusals[:TOLD_AT_ONCE]))
    if rest := refusals[TOLD_AT_ONCE:]:
        count, at = sum(each.count for each in rest), rest[-1].at
        happened.append(Happened.saying(EventKind.REFUSAL, at, "more refused", level="warning", count=count))
    return happened


def _event_of(refusal: Refusal) -> Happened:
    named = ("id", "request", "hook", "reason", "status", "client", "credential", "count")
    facts = {name: value for name in named if (value := getattr(refusal, name))}
    event = "delivery refused" if refusal.hook else "call refused"
    return Happened.saying(EventKind.REFUSAL, refusal.at, event, level="warning", **facts)


async def arrivals(reader: Reader, which: ArrivalFilter) -> list[Arrival]:
    """Return a page of arrivals, newest first."""
    values = {"hook": which.hook, "before": which.before or _BEYOND, "limit": which.limit}
    return await _with_triggers(reader, await reader.all(page_of(which), values))


async def arrival(reader: Reader, arrival_id: str) -> Arrival:
    """Return an arrival, or raise `DeliveryNotFoundError`."""
    found = await _with_triggers(reader, await reader.all(_ONE, {"id": arrival_id}))
    if not found:
        raise DeliveryNotFoundError
    return found[0]


async def uses(reader: Reader) -> list[Use]:
    """Return the uses of every credential."""
    return [Use(**dict(row)) for row in await reader.all(_USES)]


def page_of(which: ArrivalFilter) -> str:
    """Return the statement for a page. It joins the newest rows of each fate that is asked for."""
    hook = "" if which.hook is None else "AND hook = :hook"
    fates = list(Fate) if which.fate is None else [which.fate]
    some = (_SOME.format(_TABLES[fate], hook, _CONDITIONS[fate], fate) for fate in fates)
    return _PAGE.format(" UNION ALL ".join(some))


async def _with_triggers(reader: Reader, rows: Sequence[Row]) -> list[Arrival]:
    served: dict[str, list[ServedTrigger]] = {}
    for row in await reader.all(_SERVED, {"deliveries": [row["id"] for row in rows]}):
        served.setdefault(row["delivery"], []).append(served_of(row))
    return [arrival_of(row, served.get(row["id"], ())) for row in rows]
