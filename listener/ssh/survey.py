"""Looks at many repositories of one host in few round trips. One that hangs or is broken stops no other."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Sequence

from listener.errors import ConnectionLostError, RemoteStepError, SyncError
from listener.observations import Observation
from listener.plans import Notes
from listener.sites import Leg
from listener.ssh.batch import Batch
from listener.ssh.channel import Reply
from listener.ssh.connection import HostConnection
from listener.ssh.dialogue import Fields
from listener.ssh.remote_errors import error_of
from listener.ssh.replies import read_observation
from listener.ssh.repository import LISTED_BYTES, SURVEY_LISTED, observe_fields
from listener.ssh.service import Service

GROUP_SIZE = 32
"""Legs in one round trip."""

Answer = Observation | SyncError


YIELDS = 1.0
"""The most seconds that a request of a survey waits for runs on its host: its git would slow them down."""


class SurveyRequests:
    """A host's requests for surveys: one shell and one service at a time, so that runs have the others.

    Without it, a survey of many repositories takes all shells of the host, and each run waits behind it.
    """

    def __init__(self, connection: HostConnection) -> None:
        self._connection = connection
        self._shell_turn = asyncio.Lock()
        self._service_turn = asyncio.Lock()

    async def call(
        self,
        notes: Notes,
        limit: float,
        verb: str,
        *parts: Fields,
        batch: Batch | None = None,
        may_move: Awaitable[bool] | None = None,
    ) -> str:
        """Send a request when the survey's earlier ones are answered; raise `SyncError`."""
        async with self._shell_turn:
            await self._connection.at_rest(YIELDS)
            return await self._connection.call(notes, limit, verb, *parts, batch=batch, may_move=may_move)

    @contextlib.asynccontextmanager
    async def service(self, notes: Notes, name: str, path: str) -> AsyncIterator[Service]:
        """Lend a service when the survey's earlier ones have ended; raise `SyncError`."""
        async with self._service_turn, self._connection.service(notes, name, path) as service:
            yield service


class Surveyor:
    """Looks at the legs of one host.

    They are asked about in groups. A leg that does not answer within the limit is taken out of its group: the
    answers before it are kept, and the legs after it are asked again without it. From then on it is asked
    alone, until it answers.
    """

    def __init__(self, connection: HostConnection, limit: float, *, listing: bool = True) -> None:
        """With `listing`, ask also for the paths that differ: that is most of the work."""
        self._connection = connection
        self._listing = listing
        self.requests = SurveyRequests(connection)
        self._limit = limit
        """Seconds for each leg."""
        self._silent: set[tuple[str, str]] = set()
        """The keys of the legs that did not answer the last time."""

    async def look(self, legs: Sequence[Leg], notes: Notes) -> dict[Leg, Answer]:
        """Return each leg's observation or error."""
        grouped = [leg for leg in legs if not self._asked_alone(leg)]
        groups = [grouped[start : start + GROUP_SIZE] for start in range(0, len(grouped), GROUP_SIZE)]
        found: dict[Leg, Answer] = {}
        await asyncio.gather(
            *(self._ask(group, notes, found) for group in groups),
            self._ask_each([leg for leg in legs if self._asked_alone(leg)], notes, found),
        )
        return found

    def _asked_alone(self, leg: Leg) -> bool:
        return leg.key in self._silent or self._connection.stuck_in([leg.repository.path]) is not None

    async def _ask_each(self, legs: Sequence[Leg], notes: Notes, found: dict[Leg, Answer]) -> None:
        """Ask one after the other."""
        for leg in legs:
            await self._ask([leg], notes, found)

    async def _ask(self, legs: Sequence[Leg], notes: Notes, found: dict[Leg, Answer]) -> None:
        """Ask until each leg has an answer or an error."""
        rest, lost_before = list(legs), False
        while rest:
            answers, lost = await self._ask_once(rest, notes)
            if lost and lost_before:
                # Lost twice in a row before any leg answered: the cause is the host, not one leg.
                answers = dict.fromkeys(rest, next(iter(answers.values())))
            lost_before = lost
            found |= answers
            rest = [leg for leg in rest if leg not in answers]

    async def _ask_once(self, legs: Sequence[Leg], notes: Notes) -> tuple[dict[Leg, Answer], bool]:
        """Ask once; return the answers, and whether the connection was lost before any leg answered."""
        separator = secrets.token_hex(16)
        room = LISTED_BYTES // len(legs)
        listed = SURVEY_LISTED if self._listing else None
        questions = [
            {"separator": separator, **observe_fields(leg, listed, room=room, counting=True)} for leg in legs
        ]
        batch = Batch.of(questions)
        try:
            text = await self.requests.call(notes, self._limit, "survey", *questions, batch=batch)
            answers = read_survey(legs, separator, text)
        except SyncError as error:
            return self._failed(legs, batch, error)
        self._silent.difference_update(leg.key for leg in legs)
        return dict(zip(legs, answers, strict=True)), False

    def _failed(self, legs: Sequence[Leg], batch: Batch, error: SyncError) -> tuple[dict[Leg, Answer], bool]:
        """Return what is known after a round trip that failed: an answer or an error for at least one leg."""
        if batch.received is None:
            # The request was not sent: the host fails, or processes of ours are stuck in some repositories.
            stuck = {leg: self._connection.stuck_in([leg.repository.path]) for leg in legs}
            known = {leg: why for leg, why in stuck.items() if why is not None}
            return (dict(known) or dict.fromkeys(legs, error)), False
        answers = read_answers(legs, batch.separator, batch.received)
        found = dict(zip(legs, answers, strict=False))
        self._silent.difference_update(leg.key for leg in found)
        if len(answers) < len(legs):
            silent = legs[len(answers)]
            self._silent.add(silent.key)
            found[silent] = error
        return found, isinstance(error, ConnectionLostError) and not answers


def read_survey(legs: Sequence[Leg], separator: str, text: str) -> list[Answer]:
    """Return the answer of each leg in a whole reply; raise `RemoteStepError` if one is missing."""
    answers = read_answers(legs, separator, text)
    if len(answers) != len(legs):
        raise RemoteStepError("the host's reply is not complete")
    return answers


def read_answers(legs: Sequence[Leg], separator: str, text: str) -> list[Answer]:
    """Return the complete answers in a reply, which are of the first legs; none if there are too many."""
    # Split at the separators. A search for the parts between them would take quadratic time.
    *answers, _ = re.split(rf"\n{separator} ([0-9]{{1,3}})\n", text)
    if len(answers) > 2 * len(legs):
        return []
    return [
        _surveyed(leg, said, int(status))
        for leg, said, status in zip(legs, answers[::2], answers[1::2], strict=False)
    ]


def _surveyed(leg: Leg, said: str, status: int) -> Answer:
    """Return the answer in one leg's part of a reply. If it can't be read, only this leg has an error."""
    if status != 0:
        return error_of(Reply(status, said, ""))
    try:
        return read_observation(leg, said)
    except RemoteStepError as error:
        return error
