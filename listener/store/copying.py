"""Moving a store: everything in it goes from one database to another, holds and queue included.

No listener has either of them open. The source is marked, and refuses to be opened from then on: otherwise a
listener could carry out its queue a second time.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from listener.errors import ConfigurationError, StoreMovedError
from listener.store.rows import Row
from listener.store.transaction import Reader, Transaction

AT_ONCE = 1000
"""Rows that are read and written at once."""

TABLES = {
    "deliveries": (
        ("id",),
        """hook, key, received_at, size, digest, headers, facts, ignored, credential, client, count,
        last_at""",
    ),
    "repeats": (("hook", "key"), "delivery, at"),
    "runs": (
        ("position",),
        """id, site, environment, state, created_at, not_before, attempt, failures, looks, lines,
        lines_before, started_at, finished_at, successor, undoes, lane, urgent, outcome, due, turn, ready""",
    ),
    "triggers": (
        ("position",),
        "id, run, delivery, site, environment, origin, actor, at, credential, client",
    ),
    "log_lines": (("run", "sequence"), "text"),
    "holds": (("site", "environment"), "reason, actor, since, live, run"),
    "backoffs": (("site", "environment"), "failures, not_before, cleared_at, since"),
    "refusals": (
        ("id",),
        "at, request, reason, status, client, credential, hook, size, digest, headers, count",
    ),
    "uses": (("kind", "owner", "name"), "count, last"),
    "sessions": (("key",), "token, sha256, expires"),
    "looks": (("site", "environment"), "looked_at, state, plan, error, message, busy_since, legs"),
}
"""The tables of a store with their keys and other columns. Rows refer only to tables before their own.

Events are not copied: their places are the numbers of commits to their own database.
"""

_TRUTHS = ("urgent", "ready")
_USED = f"SELECT {' OR '.join(f'EXISTS (SELECT 1 FROM {table})' for table in TABLES)} AS used"  # noqa: S608 (ours)
_MARK = """
INSERT INTO moved (one, target, at) VALUES (1, :target, :at)
ON CONFLICT (one) DO UPDATE SET target = excluded.target, at = excluded.at
"""
_UNMARK = "DELETE FROM moved"
"""An empty store that was moved elsewhere may be the target of a move back."""
_MOVED = "SELECT target FROM moved"


@dataclass(frozen=True, slots=True)
class Copied:
    """The number of rows that were copied of each table."""

    rows: dict[str, int]


async def demand_unmoved(reader: Reader, to: str | None = None) -> None:
    """Raise `StoreMovedError` if the store was copied elsewhere, to another store than `to`."""
    row = await reader.one(_MOVED)
    if row is not None and row["target"] != to:
        raise StoreMovedError(
            f"This store was moved to {row['target']}. Its queue is carried out from there.",
            remedy="name that store in the configuration; to move back, copy it to a new store",
        )


async def copy(
    source: AbstractAsyncContextManager[Transaction],
    target: AbstractAsyncContextManager[Transaction],
    target_name: str,
    now: float,
) -> Copied:
    """Copy everything. The source is marked with `target_name` before the target can be opened.

    Raises `ConfigurationError` if the target is in use, `StoreError`.
    """
    # The source commits first. If the target's commit fails then, nothing has the queue, and this can be
    # repeated. The other way round, a crash would leave it in both, and its runs could be carried out twice.
    async with target as into, source as outof:
        # A source that is marked for the same target is copied again: a crash may have left it so.
        await demand_unmoved(outof, target_name)
        used = await into.one(_USED)
        if used is None or used["used"]:
            raise ConfigurationError(
                "The target is not empty.", remedy="name an empty database, or a new file"
            )
        copied = Copied({table: await _copy(outof, into, table) for table in TABLES})
        await into.write(_UNMARK)
        await outof.write(_MARK, {"target": target_name, "at": now})
    return copied


async def _copy(outof: Transaction, into: Transaction, table: str) -> int:
    key, others = TABLES[table]
    columns = [*key, *others.replace(",", " ").split()]
    listed, names = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    put = f"INSERT INTO {table} ({listed}) OVERRIDING SYSTEM VALUE VALUES ({names})"  # noqa: S608 (ours)
    order, beyond = ", ".join(key), ", ".join(f":{name}" for name in key)
    first = f"SELECT {listed} FROM {table} ORDER BY {order} LIMIT :most"  # noqa: S608 (ours)
    more = f"SELECT {listed} FROM {table} WHERE ({order}) > ({beyond}) ORDER BY {order} LIMIT :most"  # noqa: S608
    count, rows = 0, await outof.all(first, {"most": AT_ONCE})
    while rows:
        await into.many(put, [_values(row) for row in rows])
        count += len(rows)
        last = {name: rows[-1][name] for name in key}
        rows = await outof.all(more, {**last, "most": AT_ONCE})
    return count


def _values(row: Row) -> dict[str, Any]:
    values = dict(row)
    return {name: bool(value) if name in _TRUTHS else value for name, value in values.items()}
