"""A move without a separate look: one request looks, and moves the branch if all is as expected."""

import asyncio
from typing import Any

from listener.observations import Observation
from listener.plans import Applied, Notes, Repository, Signing
from listener.runs import Run

UNCLAIMED = 2.0
"""Seconds after which a move is withdrawn if no run has taken it, because the claim was not committed."""


class Advance:
    """A request that is sent before the branch may move. The host prepares the move and waits for go or stop.

    So the host works while the listener stores what is about to move. Nothing moves before `answer`.
    """

    def __init__(
        self,
        repository: Repository,
        expected: Observation,
        signing: Signing,
        quiet: float,
        notes: "LateNotes | None" = None,
    ) -> None:
        self.expected = expected
        """The state in which the repository should be."""
        self.notes = notes or LateNotes()
        """The notes of `repository`. They keep its events until the run's notes are known."""
        self._may_move: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._request = asyncio.create_task(repository.advance(expected, signing, quiet, self._may_move))
        # A withdrawn request may fail later. Reading its exception keeps asyncio from logging it.
        self._request.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def spent(self) -> bool:
        """Whether go or stop was said."""
        return self._may_move.done()

    def withdraw(self) -> None:
        """Say stop, unless go or stop was said before."""
        if not self._may_move.done():
            self._may_move.set_result(False)

    async def answer(self, *, may_move: bool) -> Applied:
        """Say go or stop, and return what the host has done and seen; raise `SyncError`.

        If this is cancelled, the host is asked to end the step.
        """
        if not self._may_move.done():
            self._may_move.set_result(may_move)
        return await self._request


class Early:
    """Moves that have begun for runs whose claim is not committed yet. A claim may still fail."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int], Advance] = {}

    def begin(self, run: Run, advance: Advance | None) -> None:
        """Keep a move for this attempt, but not for long: it uses one of the host's shells."""
        # The store may carry out a claim again. The move of the first time would wait for go or stop.
        self._expire(run)
        if advance is not None:
            self._begun[run.id, run.attempt] = advance
            asyncio.get_running_loop().call_later(UNCLAIMED, self._expire, run)

    def taken(self, run: Run) -> Advance | None:
        """Return the move of this attempt, whose claim is durable; None if there is none."""
        return self._begun.pop((run.id, run.attempt), None)

    def _expire(self, run: Run) -> None:
        advance = self.taken(run)
        if advance is not None:
            advance.withdraw()

    def withdraw(self) -> None:
        """Withdraw all moves that no run has taken."""
        for advance in self._begun.values():
            advance.withdraw()
        self._begun.clear()


class LateNotes:
    """Keeps events until the notes of their run are known."""

    def __init__(self) -> None:
        self._notes: Notes | None = None
        self._kept: list[tuple[str, str, bool, dict[str, Any]]] = []

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        """Keep one event, or pass it on."""
        if self._notes is None:
            self._kept.append((event, level, repeated, facts))
        else:
            self._notes.note(event, level, repeated=repeated, **facts)

    def hand_to(self, notes: Notes) -> None:
        """Pass on the kept events, and all later ones."""
        self._notes = notes
        for event, level, repeated, facts in self._kept:
            notes.note(event, level, repeated=repeated, **facts)
        self._kept.clear()
