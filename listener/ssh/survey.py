"""Looking at many repositories of one host in few round trips; none keeps the others from their answer."""

import asyncio
import re
import secrets
from collections.abc import Sequence

from listener.errors import ConnectionLostError, RemoteStepError, SyncError
from listener.observations import Observation
from listener.plans import Notes
from listener.sites import Leg
from listener.ssh.connection import HostConnection
from listener.ssh.replies import read_observation
from listener.ssh.repository import LISTED_BYTES, SURVEY_LISTED, observe_fields
from listener.ssh.shell import Reply, refusal
from listener.ssh.tour import Tour

SURVEYED_AT_ONCE = 32
"""Legs that a round trip asks about."""

Answer = Observation | SyncError


class Surveyor:
    """Looks at the legs of one host.

    They are asked about in groups. One that keeps its group waiting beyond the limit is left out of it: what
    was told before it is kept, and the rest is asked again without it. It is asked alone from then on, until
    it answers.
    """

    def __init__(self, connection: HostConnection, limit: float) -> None:
        self._connection = connection
        self._limit = limit
        """Seconds for each leg."""
        self._silent: set[tuple[str, str]] = set()
        """The legs, by their keys, that did not answer when they were asked last."""

    async def look(self, legs: Sequence[Leg], notes: Notes) -> dict[Leg, Answer]:
        """Return what each leg answers, or why it does not."""
        together = [leg for leg in legs if not self._apart(leg)]
        groups = [
            together[start : start + SURVEYED_AT_ONCE] for start in range(0, len(together), SURVEYED_AT_ONCE)
        ]
        found: dict[Leg, Answer] = {}
        await asyncio.gather(
            *(self._ask(group, notes, found) for group in groups),
            self._ask_each([leg for leg in legs if self._apart(leg)], notes, found),
        )
        return found

    def _apart(self, leg: Leg) -> bool:
        return leg.key in self._silent or self._connection.stalled([leg.repository.path]) is not None

    async def _ask_each(self, legs: Sequence[Leg], notes: Notes, found: dict[Leg, Answer]) -> None:
        """Ask one after the other: together they would keep all of the host's shells waiting."""
        for leg in legs:
            await self._ask([leg], notes, found)

    async def _ask(self, legs: Sequence[Leg], notes: Notes, found: dict[Leg, Answer]) -> None:
        """Ask until each leg has answered, or is known not to."""
        rest, lost = list(legs), False
        while rest:
            answers, cut = await self._round(rest, notes)
            if cut and lost:
                # Twice in a row before anybody answered: it is the host, not the leg.
                answers = dict.fromkeys(rest, next(iter(answers.values())))
            lost = cut
            found |= answers
            rest = [leg for leg in rest if leg not in answers]

    async def _round(self, legs: Sequence[Leg], notes: Notes) -> tuple[dict[Leg, Answer], bool]:
        """Ask once; return what is known now, and whether the connection was lost before anybody answered."""
        mark = secrets.token_hex(16)
        room = LISTED_BYTES // len(legs)
        questions = [
            {"separator": mark, **observe_fields(leg, SURVEY_LISTED, room=room, counting=True)}
            for leg in legs
        ]
        tour = Tour.of(questions)
        try:
            text = await self._connection.call(notes, self._limit, "survey", *questions, tour=tour)
            answers = read_survey(legs, mark, text)
        except SyncError as error:
            return self._failed(legs, tour, error)
        self._silent.difference_update(leg.key for leg in legs)
        return dict(zip(legs, answers, strict=True)), False

    def _failed(self, legs: Sequence[Leg], tour: Tour, error: SyncError) -> tuple[dict[Leg, Answer], bool]:
        """Return what is known of the legs though the round failed: at least of one of them."""
        if tour.heard is None:
            # Nobody was asked: because of the host, or of those whose repositories nobody is sent into.
            stalled = {leg: self._connection.stalled([leg.repository.path]) for leg in legs}
            known = {leg: why for leg, why in stalled.items() if why is not None}
            return (dict(known) or dict.fromkeys(legs, error)), False
        answers = arrived(legs, tour.mark, tour.heard)
        told = dict(zip(legs, answers, strict=False))
        self._silent.difference_update(leg.key for leg in told)
        if len(answers) < len(legs):
            silent = legs[len(answers)]
            self._silent.add(silent.key)
            told[silent] = error
        return told, isinstance(error, ConnectionLostError) and not answers


def read_survey(legs: Sequence[Leg], mark: str, text: str) -> list[Answer]:
    """Return what `ss_survey` told of each leg; raise `RemoteStepError` for what it can't have told."""
    answers = arrived(legs, mark, text)
    if len(answers) != len(legs):
        raise RemoteStepError("the host's reply is not whole")
    return answers


def arrived(legs: Sequence[Leg], mark: str, text: str) -> list[Answer]:
    """Return what was told of the first legs, as far as it is whole; nothing if it is more than asked for."""
    # Split, not searched for what lies between: that would take time by the square of what a host says.
    *answers, _ = re.split(rf"\n{mark} ([0-9]{{1,3}})\n", text)
    if len(answers) > 2 * len(legs):
        return []
    return [
        _surveyed(leg, said, int(status))
        for leg, said, status in zip(legs, answers[::2], answers[1::2], strict=False)
    ]


def _surveyed(leg: Leg, said: str, status: int) -> Answer:
    """Return one leg's part of a survey: what can't be read of it is no other leg's fault."""
    if status != 0:
        return refusal(Reply(status, said, ""))
    try:
        return read_observation(leg, said)
    except RemoteStepError as error:
        return error
