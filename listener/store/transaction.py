"""The ports that a rule of the store uses. Each database implements them.

A rule is a coroutine over one of these ports. It uses PostgreSQL's SQL with named parameters (`:id`).
PostgreSQL awaits a rule. SQLite steps it (`listener.store.sqlite.dialect`): there it never suspends.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from listener.events import Happened
from listener.store.rows import Row

P = ParamSpec("P")
T = TypeVar("T")

Values = Mapping[str, Any]
NOTHING: Values = {}


class Reader(Protocol):
    """Reads. Each statement sees the database at one moment."""

    async def all(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Return every row of the statement."""

    async def one(self, sql: str, values: Values = NOTHING) -> Row | None:
        """Return the statement's first row, or None."""


class Transaction(Reader, Protocol):
    """Writes. All of them become durable, or none. A request has its keys to itself."""

    node: str
    """The listener that writes."""
    changed: set[str]
    """The runs with a new state or new lines. Their listeners are woken after the commit."""
    work: bool
    """Whether a run may have become claimable. The worker is woken after the commit."""
    happened: list[Happened]
    """The events of this transaction. They are stored with it."""

    async def write(self, sql: str, values: Values = NOTHING) -> None:
        """Run a statement that changes something."""

    async def change(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Run a statement that may change something; return the rows that it returns."""

    async def many(self, sql: str, rows: Sequence[Values]) -> None:
        """Run a statement that changes something once for each of the rows."""


Rule = Callable[Concatenate[Transaction, P], Coroutine[Any, Any, T]]
Query = Callable[Concatenate[Reader, P], Coroutine[Any, Any, T]]
