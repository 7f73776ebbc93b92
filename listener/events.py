"""Events: one sequence for all listeners on a store.

An event is stored by the transaction that causes it. Its place is the number of that commit, its number
within the commit, and, for a line of a run's log, the number of the line. Places only grow. So a reader that
knows the place of the last event that it has read can go on after it, at any listener.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from listener.queue import Signal
from listener.vocabulary import EventKind as EventKind  # noqa: PLC0414 (it belongs here, for everybody but a command)

FOR_ADMINS = frozenset({EventKind.DELIVERY, EventKind.REFUSAL, EventKind.HOST})
"""The kinds that do not belong to a site. Members do not see them."""


class Place(NamedTuple):
    """The place of an event in the sequence."""

    batch: int
    """The number of the commit. Later commits have larger ones."""
    number: int = 0
    """The event's place within the commit."""
    line: int = 0
    """The number of a line in the log of its run; 0 for other events."""

    def __str__(self) -> str:
        return f"{self.batch}.{self.number}.{self.line}"

    @classmethod
    def of(cls, text: str) -> "Place":
        """Return the place that a text names, or raise `ValueError`."""
        parts = text.split(".")
        if text == "0":
            return START
        if len(parts) != len(START) or not all(map(_number, parts)):
            raise ValueError(text)
        return cls(*map(int, parts))


START = Place(0)
"""The place before the oldest event that is kept."""

_DIGITS_MOST = 18


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_MOST


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, or some lines of a run's log, as a transaction stores them."""

    kind: EventKind
    site: str = ""
    environment: str = ""
    reference: str = ""
    """The id of a run whose log has the lines, or of a delivery."""
    first: int = 0
    """The first of the lines."""
    last: int = 0
    text: str = ""
    """A JSON object; empty if another table has the facts."""

    @classmethod
    def saying(
        cls, kind: EventKind, at: float, event: str, site: str = "", environment: str = "", **facts: Any
    ) -> "Happened":
        """Return an event with facts of its own."""
        return cls(kind, site, environment, text=said(at, event, site, environment, **facts))


def said(at: float, event: str, site: str = "", environment: str = "", **facts: Any) -> str:
    """Return the text of an event, in the form of a line of a run's log."""
    where = {"site": site, "environment": environment} if site else {}
    level = facts.pop("level", "info")
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": when, "level": level, "event": event, **where, **facts}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as followers get it."""

    place: Place
    kind: EventKind
    places: frozenset[tuple[str, str]]
    """The sites and environments that it is about."""
    text: str
    """One line: a JSON object."""

    @classmethod
    def of(cls, place: Place, kind: EventKind, places: Collection[tuple[str, str]], text: str) -> "Event":
        """Return an event; `text` is a JSON object without its id and kind."""
        return cls(place, kind, frozenset(places), f'{{"id": "{place}", "kind": "{kind.value}", {text[1:]}')


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events that a follower wants and may see."""

    visible: frozenset[str] | None = None
    """The sites that the caller may see. None for an admin, who may see everything."""
    sites: frozenset[str] = frozenset()
    """Only events of these sites; empty for all. The next two fields work in the same way."""
    environments: frozenset[str] = frozenset()
    kinds: frozenset[EventKind] = frozenset()

    def matches(self, event: Event) -> bool:
        """Return whether a follower gets an event."""
        if self.kinds and event.kind not in self.kinds:
            return False
        if self.visible is not None and (event.kind in FOR_ADMINS or not self._seen(event, self.visible)):
            return False
        if self.sites and not self._seen(event, self.sites):
            return False
        return not self.environments or any(name in self.environments for _, name in event.places)

    @property
    def only(self) -> frozenset[str] | None:
        """The sites whose events can match; None for all."""
        if self.visible is None:
            return self.sites or None
        return self.sites & self.visible if self.sites else self.visible

    def _seen(self, event: Event, sites: frozenset[str]) -> bool:
        return any(site in sites for site, _ in event.places)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events in their order."""

    events: Sequence[Event]
    upto: Place
    """The place up to which this page is complete."""
    known: bool = True
    """Whether the place that was asked for is still kept. If not, the page is empty."""
    more: bool = False
    """Whether there may be further events already."""
    pending: bool = False
    """Whether later events can't be read yet, because an earlier commit is still under way."""


class EventStore(Protocol):
    """Keeps events. Every method may raise `StoreUnavailableError`."""

    async def events(self, after: Place, limit: int = 500) -> EventPage:
        """Return the events of up to `limit` stored rows after a place."""

    async def newest_event(self) -> Place:
        """Return the place of the last event."""

    async def events_since(self, at: float) -> Place:
        """Return the place before the first event since a Unix time."""

    async def note_events(self, happened: Sequence[Happened]) -> None:
        """Store events that do not belong to another write."""

    @property
    def happening(self) -> Signal:
        """A signal that is set when there may be a new event."""
