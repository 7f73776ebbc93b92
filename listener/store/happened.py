"""The stored events, in the order of their commits.

In PostgreSQL, the number of a commit is its transaction id. A transaction with a lower id may commit after
one with a higher id. So readers stop before the lowest id that is still under way: no new event can appear
before it. Writers do not wait for each other.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from listener.events import START, Event, EventKind, EventPage, Happened, Place, said
from listener.store.rows import Row
from listener.store.transaction import Reader, Transaction

COMMITTED_IN = 30.0
"""The most seconds from the end of a run to its commit. The time of an event is that of its commit."""

EVENTS_A_RUN = 10
"""The number of events that are kept for each run that is kept. A run makes two to four."""

COLUMNS = ("kind", "site", "environment", "reference", "first", "last", "text")
_VALUES = attrgetter(*COLUMNS)

_SETTLED = "e.batch < txid_snapshot_xmin(txid_current_snapshot())"
_PAGE = f"""
SELECT e.*, l.sequence, l.text AS line, {_SETTLED} AS settled
FROM (
    SELECT * FROM events WHERE (batch, number) >= (:batch::bigint, :number::bigint)
    ORDER BY batch, number LIMIT :limit
) AS e
LEFT JOIN log_lines AS l ON l.run = e.reference AND l.sequence >= e.first AND l.sequence <= e.last
ORDER BY e.batch, e.number, l.sequence
"""  # noqa: S608 (ours)
_NEWEST = f"""
SELECT e.batch, e.number, e.last FROM events AS e WHERE {_SETTLED}
ORDER BY e.batch DESC, e.number DESC LIMIT 1
"""  # noqa: S608 (ours)
_DELIVERIES = """
SELECT id, hook, key, ignored, credential, client, size FROM deliveries WHERE id = ANY (:ids::text[])
"""
_SERVED = """
SELECT delivery, run, site, environment FROM triggers WHERE delivery = ANY (:ids::text[]) ORDER BY position
"""
_BOUNDS = "SELECT min(batch) AS low, max(batch) AS high FROM events"
_NEXT = "SELECT batch, at FROM events WHERE batch >= :batch ORDER BY batch, number LIMIT 1"
_BEFORE = """
SELECT batch, number, last FROM events WHERE batch < :batch ORDER BY batch DESC, number DESC LIMIT 1
"""
_TOO_MANY = "SELECT batch FROM events ORDER BY batch DESC, number DESC LIMIT 1 OFFSET :keep"
_ENDED = "SELECT max(finished_at) AS at FROM runs WHERE id = ANY (:ids::text[])"
# The newest event stays: a follower may have read it long ago, and goes on from there.
_FORGET = """
DELETE FROM events WHERE (batch, number) IN (
    SELECT batch, number FROM events
    WHERE batch <= :batch AND batch < (SELECT max(batch) FROM events) ORDER BY batch, number LIMIT :most
)
RETURNING batch
"""

_OF_ANOTHER_SERVER = "DELETE FROM events WHERE batch > txid_snapshot_xmax(txid_current_snapshot())"


def rows_of(happened: Iterable[Happened]) -> list[tuple[Any, ...]]:
    """Return the values of `COLUMNS` for each event."""
    return list(map(_VALUES, happened))


async def note(transaction: Transaction, happened: Sequence[Happened]) -> None:
    """Carry out `EventStore.note_events`."""
    transaction.happened += happened


async def forget_other_servers(transaction: Transaction) -> None:
    """Delete events with higher transaction ids than this server has given: the database was restored here.

    New events would come before them. Runs, deliveries and logs stay.
    """
    await transaction.write(_OF_ANOTHER_SERVER)


async def newest(reader: Reader) -> Place:
    """Carry out `EventStore.newest_event`."""
    return _place_of(await reader.one(_NEWEST))


async def page(reader: Reader, after: Place, limit: int = 500) -> EventPage:
    """Carry out `EventStore.events`."""
    # The row of the place itself comes first: it may have further lines, and it shows that the place is kept.
    values = {"batch": after.batch, "number": after.number, "limit": limit + 1}
    rows = await reader.all(_PAGE, values)
    settled = [row for row in rows if row["settled"]]
    if after != START and (not settled or (settled[0]["batch"], settled[0]["number"]) != after[:2]):
        return EventPage((), after, known=False)
    deliveries = await _deliveries(reader, settled)
    events = [event for row in settled if (event := _event_of(row, deliveries)).place > after]
    upto = _place_of(settled[-1]) if settled else after
    count = len({(row["batch"], row["number"]) for row in rows})
    pending = len(settled) < len(rows)
    return EventPage(events, max(upto, after), more=count > limit and not pending, pending=pending)


async def since(reader: Reader, at: float) -> Place:
    """Carry out `EventStore.events_since`."""
    batch = await _first_since(reader, at)
    return await newest(reader) if batch is None else _place_of(await reader.one(_BEFORE, {"batch": batch}))


async def horizon(reader: Reader, before: float, runs: Sequence[str], keep: int) -> int:
    """Return the number of the last commit whose events are to be deleted; 0 for none.

    To be deleted are the events before a time, those before the end of `runs` (which are deleted next), and
    the oldest ones beyond the number for `keep` runs.
    """
    ended = await reader.one(_ENDED, {"ids": list(runs)}) if runs else None
    at = max(before, ended["at"] + COMMITTED_IN if ended is not None and ended["at"] is not None else 0.0)
    kept = await _first_since(reader, at)
    if kept is None:
        bounds = await reader.one(_BOUNDS)
        kept = (bounds["high"] or 0) + 1 if bounds is not None else 1
    beyond = await reader.one(_TOO_MANY, {"keep": keep * EVENTS_A_RUN})
    return max(kept - 1, beyond["batch"] if beyond is not None else 0)


async def forget(transaction: Transaction, upto: int, most: int) -> int:
    """Delete up to `most` events up to the commit `upto`; return how many there were."""
    return len(await transaction.change(_FORGET, {"batch": upto, "most": most}))


async def _first_since(reader: Reader, at: float) -> int | None:
    """Return the number of the first commit since a time, by binary search: times grow with the numbers."""
    bounds = await reader.one(_BOUNDS)
    if bounds is None or bounds["high"] is None:
        return None
    low, high = bounds["low"], bounds["high"] + 1
    while low < high:
        middle = (low + high) // 2
        row = await reader.one(_NEXT, {"batch": middle})
        if row is not None and row["at"] < at:
            low = row["batch"] + 1
        else:
            high = middle
    found = await reader.one(_NEXT, {"batch": low})
    return None if found is None else int(found["batch"])


async def _deliveries(reader: Reader, rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Return the facts of the deliveries that some rows refer to, by id."""
    ids = [row["reference"] for row in rows if row["kind"] == EventKind.DELIVERY]
    if not ids:
        return {}
    found = {row["id"]: {**dict(row), "served": []} for row in await reader.all(_DELIVERIES, {"ids": ids})}
    for row in await reader.all(_SERVED, {"ids": ids}):
        if row["delivery"] in found:
            found[row["delivery"]]["served"].append(row)
    return found


def _event_of(row: Row, deliveries: dict[str, dict[str, Any]]) -> Event:
    kind, place = EventKind(row["kind"]), Place(row["batch"], row["number"], row["sequence"] or 0)
    if row["line"] is not None:
        return Event.of(place, kind, [(row["site"], row["environment"])], row["line"])
    if row["text"] or kind is not EventKind.DELIVERY:
        where = row["site"], row["environment"]
        text = row["text"] or said(row["at"], kind.value, *where, **_of_run(row))
        return Event.of(place, kind, [where] if row["site"] else (), text)
    delivery = deliveries.get(row["reference"], {})
    served = delivery.get("served", ())
    text = said(
        row["at"],
        "delivery ignored" if delivery.get("ignored") else "delivery",
        delivery=row["reference"],
        runs=[each["run"] for each in served],
        **{
            name: delivery[name]
            for name in ("hook", "key", "ignored", "credential", "client", "size")
            if delivery.get(name)
        },
    )
    return Event.of(place, kind, [(each["site"], each["environment"]) for each in served], text)


def _of_run(row: Row) -> dict[str, Any]:
    """Return what is known of lines that were deleted with their run."""
    return {"run": row["reference"], "deleted_lines": row["last"] - row["first"] + 1} if row["last"] else {}


def _place_of(row: Row | None) -> Place:
    """Return the place of the last event of a row."""
    return START if row is None else Place(row["batch"], row["number"], row["last"])
