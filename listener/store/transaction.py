"""What a rule of the store is given, whichever database carries it out.

A rule is a coroutine over one of these ports, and says what it wants in one dialect of SQL, PostgreSQL's,
with parameters by name (`:id`). PostgreSQL awaits a rule. SQLite steps it (`listener.store.sqlite.dialect`):
there it never suspends.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from listener.store.rows import Row

P = ParamSpec("P")
T = TypeVar("T")

Values = Mapping[str, Any]
NOTHING: Values = {}


class Reader(Protocol):
    """Reads; each statement sees one moment."""

    async def all(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Return every row of the statement."""

    async def one(self, sql: str, values: Values = NOTHING) -> Row | None:
        """Return the statement's first row, or None."""


class Transaction(Reader, Protocol):
    """Writes: all of it becomes durable, or none. A request has what it names at its start to itself."""

    node: str
    """The listener that writes."""
    changed: set[str]
    """The runs that have a new state or new lines: who waits for them is woken once that is committed."""
    work: bool
    """Whether a run may have become claimable."""

    async def write(self, sql: str, values: Values = NOTHING) -> None:
        """Run a statement that changes something."""

    async def change(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Run a statement that may change something; return the rows that it returns."""

    async def many(self, sql: str, rows: Sequence[Values]) -> None:
        """Run a statement that changes something once for each of the rows."""


Rule = Callable[Concatenate[Transaction, P], Coroutine[Any, Any, T]]
Query = Callable[Concatenate[Reader, P], Coroutine[Any, Any, T]]
