"""Rows of the database, and the objects of the core that they stand for."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Protocol

from listener.access import Session
from listener.outcomes import LegOutcome, LegState, Outcome, Wait
from listener.queue import Hold
from listener.records import Arrival, Fate, ServedTrigger
from listener.runs import Origin, Run, State, Trigger


class Row(Protocol):
    """A row of either database."""

    def keys(self) -> Iterable[str]:
        """Return the names of its columns."""

    def __getitem__(self, column: str, /) -> Any: ...


RUN = """
runs.id, runs.site, runs.environment, runs.state, runs.created_at,
CASE runs.state WHEN 'queued' THEN runs.due ELSE runs.not_before END AS not_before,
runs.attempt, runs.failures, runs.looks, runs.lines, runs.started_at, runs.finished_at, runs.successor,
runs.undoes, runs.outcome,
coalesce((
    SELECT b.failures FROM backoffs AS b WHERE b.site = runs.site AND b.environment = runs.environment
), 0) AS streak,
coalesce((
    SELECT h.live FROM holds AS h WHERE h.site = runs.site AND h.environment = runs.environment
), '') AS held_live
"""
"""The columns of a run, for SELECT and for RETURNING."""


_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in (Outcome, LegOutcome, Wait)}


def _fields_of(value: Any) -> dict[str, Any]:
    # `dataclasses.asdict` copies every value below it, too: it took longer than the statement that stores it.
    return {name: getattr(value, name) for name in _NAMES[type(value)]}


_ENCODER = json.JSONEncoder(default=_fields_of)


def run_of(row: Row) -> Run:
    """Return the run of a row with the columns `RUN`."""
    values: dict[str, Any] = dict(row)
    values["state"] = State(values["state"])
    values["outcome"] = _outcome_of(values["outcome"])
    return Run(**values)


def trigger_of(row: Row) -> Trigger:
    """Return the trigger of a row of `triggers`."""
    return Trigger(
        row["id"],
        row["site"],
        row["environment"],
        Origin(row["origin"]),
        row["actor"],
        row["at"],
        credential=row["credential"],
        client=row["client"],
    )


def served_of(row: Row) -> ServedTrigger:
    """Return the trigger of a row of `triggers`, with its run."""
    return ServedTrigger(trigger_of(row), row["run"])


def arrival_of(row: Row, served: Sequence[ServedTrigger]) -> Arrival:
    """Return the arrival of a row of the views `taken` or `refused`."""
    values: dict[str, Any] = dict(row)
    values["fate"] = Fate(values["fate"])
    for name in ("headers", "facts"):
        values[name] = json.loads(values[name] or "{}")
    return Arrival(**values, served=tuple(served))


def hold_of(row: Row) -> Hold:
    """Return the hold of a row of `holds`."""
    return Hold(row["site"], row["environment"], row["reason"], row["actor"], row["since"], row["live"])


def session_of(row: Row) -> Session:
    """Return the session of a row of `sessions`."""
    return Session(row["key"], row["token"], row["sha256"], row["expires"])


def outcome_text(outcome: Outcome) -> str:
    """Return the text that is stored for an outcome."""
    return _ENCODER.encode(outcome)


def _outcome_of(text: str | None) -> Outcome | None:
    if text is None:
        return None
    values = json.loads(text)
    values["warnings"] = tuple(values["warnings"])
    values["legs"] = tuple(map(_leg_of, values["legs"]))
    return Outcome(**values)


def _leg_of(values: dict[str, Any]) -> LegOutcome:
    """Return a leg of an outcome. Version 0.1 wrote `done` and `moved` instead of `state`."""
    values = {**values, "removed": tuple(values["removed"])}
    if "state" in values:
        state, sent_for = LegState(values["state"]), values["sent_for"]
        values["wait"] = Wait(**values["wait"])
    else:
        state = _state(values.pop("done"), values.pop("moved"), values["old"] != values["new"])
        sent_for = [values["live"]] if state is LegState.SENT else []
    return LegOutcome(**{**values, "state": state, "sent_for": tuple(sent_for)})


def _state(done: bool, moved: bool, known: bool) -> LegState:
    """Return the state for what version 0.1 wrote. It wrote no new commit if it was not sure of a move."""
    if done:
        return LegState.MADE_EQUAL if moved else LegState.FOUND_EQUAL
    if moved:
        return LegState.MOVED if known else LegState.SENT
    return LegState.WAITING
