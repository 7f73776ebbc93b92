"""How SQLite carries out a rule: it translates the statements, and steps the coroutine."""

import json
import re
import sqlite3
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from listener.events import Happened
from listener.store.rows import Row
from listener.store.statements import numbered, portions
from listener.store.transaction import NOTHING, Values

T = TypeVar("T")

_TABLE = (
    # SQLite has an operator for this only since 3.38.
    (r"(\w+\.\w+)::json ->> (\d)", r"json_extract(\1, '$[\2]')"),
    (r"::\w+(\[\])?", ""),
    (r"\bgreatest\(", "max("),
    (r"\bleast\(", "min("),
    (r"= ANY \((:\w+)\)", r"IN (SELECT value FROM json_each(\1))"),
    (r"<> ALL \((:\w+)\)", r"NOT IN (SELECT value FROM json_each(\1))"),
    (r"\bunnest\((:\w+)\) AS (\w+) \((\w+)\)", r"(SELECT value AS \3 FROM json_each(\1)) AS \2"),
    # There is one writer, so nothing has to be locked, and no run is leased.
    (r"\s+FOR UPDATE( OF \w+)?( SKIP LOCKED)?", ""),
    (r" AND node = :node\b", ""),
    (r", node = (:node|NULL), lease_until = .*", ""),
    (r" OVERRIDING SYSTEM VALUE", ""),
    # A commit is seen once it is done, and nothing comes before it then.
    (r"\b\w+\.batch < txid_snapshot_xmin\(txid_current_snapshot\(\)\)", "true"),
)
_LIST = re.compile(r"json_each\(:(\w+)\)")


@cache
def translated(sql: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement in SQLite's dialect, and the names of its parameters that are lists."""
    for pattern, replacement in _TABLE:
        sql = re.sub(pattern, replacement, sql)
    return sql, tuple(dict.fromkeys(_LIST.findall(sql)))


def step(rule: Coroutine[Any, Any, T]) -> T:
    """Carry out a rule in this thread. It never suspends: on SQLite, each statement answers at once."""
    try:
        rule.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    rule.close()
    raise RuntimeError("a rule waits for something other than its transaction")


@dataclass(slots=True)
class SqliteReader:
    """A connection, as a rule uses it."""

    connection: sqlite3.Connection

    async def all(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Return every row of the statement."""
        text, lists = translated(sql)
        if lists:
            values = {**values, **{name: json.dumps(values[name]) for name in lists}}
        rows: list[Row] = self.connection.execute(text, values).fetchall()
        return rows

    async def one(self, sql: str, values: Values = NOTHING) -> Row | None:
        """Return the statement's first row, or None."""
        rows = await self.all(sql, values)
        return rows[0] if rows else None


@dataclass(slots=True)
class SqliteTransaction(SqliteReader):
    """The part of one request in a batch."""

    changed: set[str] = field(default_factory=set)
    work: bool = False
    happened: list[Happened] = field(default_factory=list)
    node: str = ""

    async def write(self, sql: str, values: Values = NOTHING) -> None:
        """Run a statement that changes something."""
        await self.all(sql, values)

    async def change(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Run a statement that may change something; return the rows that it returns."""
        return await self.all(sql, values)

    async def many(self, sql: str, rows: Sequence[Values]) -> None:
        """Run a statement once for each of the rows."""
        # A statement for each row would hand the interpreter to another thread and back each time.
        for portion in portions(rows):
            text, names = numbered(sql, "?", len(portion))
            self.connection.execute(translated(text)[0], [row[name] for row in portion for name in names])
