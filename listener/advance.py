"""A move without a look before: the host looks, and moves the branch if everything is as expected."""

import asyncio
from typing import Any

from listener.observations import Observation
from listener.plans import Applied, Notes, Repository, Signing
from listener.runs import Run

UNCLAIMED = 2.0
"""Seconds for which something that has begun waits for its run, if the run's claim is not committed."""


class Advance:
    """A request that is sent before the branch may move. The host prepares the move, and waits for a word.

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
        """What the repository should be like."""
        self.notes = notes or LateNotes()
        """The notes of `repository`, if the run's are not known yet."""
        self._may_move: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._request = asyncio.create_task(repository.advance(expected, signing, quiet, self._may_move))
        # A request that was withdrawn may fail when nobody waits for it: its exception is read here.
        self._request.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def spent(self) -> bool:
        """Whether the word has been given."""
        return self._may_move.done()

    def withdraw(self) -> None:
        """Let nothing move, unless the word has been given."""
        if not self._may_move.done():
            self._may_move.set_result(False)

    async def answer(self, *, may_move: bool) -> Applied:
        """Give the word, and return what the host has done and seen; raise `SyncError`.

        If this is cancelled, the host is asked to end the step.
        """
        if not self._may_move.done():
            self._may_move.set_result(may_move)
        return await self._request


class Early:
    """What has begun for runs that are being claimed: a claim may still fail."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int], Advance] = {}

    def begin(self, run: Run, advance: Advance | None) -> None:
        """Keep what has begun for this attempt, for a while: it holds one of the host's shells."""
        # The store may carry a claim out again. What the first one has begun would wait for its word.
        self._expire(run)
        if advance is not None:
            self._begun[run.id, run.attempt] = advance
            asyncio.get_running_loop().call_later(UNCLAIMED, self._expire, run)

    def taken(self, run: Run) -> Advance | None:
        """Return what has begun for this attempt, whose claim is durable; None if nothing has."""
        return self._begun.pop((run.id, run.attempt), None)

    def _expire(self, run: Run) -> None:
        advance = self.taken(run)
        if advance is not None:
            advance.withdraw()

    def withdraw(self) -> None:
        """Let nothing move that no run has taken."""
        for advance in self._begun.values():
            advance.withdraw()
        self._begun.clear()


class LateNotes:
    """Keeps events until it is known where they belong."""

    def __init__(self) -> None:
        self._notes: Notes | None = None
        self._kept: list[tuple[str, str, bool, dict[str, Any]]] = []

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        """Keep one event, or hand it on."""
        if self._notes is None:
            self._kept.append((event, level, repeated, facts))
        else:
            self._notes.note(event, level, repeated=repeated, **facts)

    def hand_to(self, notes: Notes) -> None:
        """Hand all events on, now and from now on."""
        self._notes = notes
        for event, level, repeated, facts in self._kept:
            notes.note(event, level, repeated=repeated, **facts)
        self._kept.clear()
