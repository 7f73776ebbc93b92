"""Looking at environments in small batches that leave room for runs, and keeping what the looks find.

Each host has its own queue, so that a silent host does not delay the looks at others. A fresh look that
somebody asks for goes before the looks of the schedule. The result of a look is in memory at once, and is
stored soon, together with other results. The result of a run counts as a look.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from listener.errors import ListenerError, StoreError
from listener.journal import Log, Remarks
from listener.looks import EnvironmentLook, LegLook, LookState, LookStore, Place
from listener.outcomes import LegOutcome, Outcome
from listener.plans import PlanKind
from listener.runs import Run
from listener.sites import Environment, Leg
from listener.sync import Synchronizer

BATCH = 8
"""Environments that are looked at together. A run on the same host has one batch beside it at most."""

REST = 2.0
"""The pause between two batches of the schedule, as a multiple of the time that the last batch took. So most
of the time a host is at rest, and runs are not delayed."""
URGENT_REST = 0.5
"""The same between two batches that somebody waits for."""

KEEP_AFTER = 0.1
"""Seconds until the result of a look is stored, together with the other results of this time."""
STORE_PAUSE = 5.0
"""Seconds before the next attempt after the store has failed."""
KEPT_AT_ONCE = 200
"""Looks that are stored in one transaction. They are few, so that other writes do not wait long."""

RECALLED_AT_ONCE = 500
"""Stored looks that one query reads after the start."""

ALWAYS = math.inf
"""No stored look is new enough."""


@dataclass(slots=True)
class _Request:
    environment: Environment
    enough: float
    """A stored look that began at this time or later is new enough to be the answer."""
    answer: asyncio.Future[EnvironmentLook]


@dataclass(slots=True)
class _Queue:
    """The requests for looks at one host, or at the hosts of one lane."""

    urgent: dict[Place, _Request] = field(default_factory=dict)
    usual: dict[Place, _Request] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody asks for an urgent look."""
    task: asyncio.Task[None] | None = None

    def next(self) -> list[_Request]:
        """Take the next batch."""
        waiting = self.urgent or self.usual
        return [waiting.pop(place) for place in list(waiting)[:BATCH]]

    async def rest(self, seconds: float) -> None:
        """Wait, or return earlier if somebody asks for an urgent look."""
        self.asked.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.asked.wait()
        except TimeoutError:
            return


class Surveys:
    """Looks at environments, and keeps the last look at each."""

    def __init__(
        self, synchronizer: Synchronizer, store: LookStore, clock: Callable[[], float], log: Log
    ) -> None:
        self._synchronizer = synchronizer
        self._store = store
        self._clock = clock
        self._log = log
        self._queues: dict[str, _Queue] = {}
        """By lane. A queue without a request is deleted."""
        self._unstored: dict[Place, EnvironmentLook] = {}
        """Looks that are not stored yet."""
        self._found = asyncio.Event()

    async def known(self, environments: Collection[Environment]) -> Mapping[Place, EnvironmentLook]:
        """Return the last look at each environment, if there was one; raise `StoreError`.

        A look counts only if it was at the repositories that are configured now.
        """
        places = {(each.site, each.name): each for each in environments}
        found = dict(await self._store.looks(places.keys())) if places else {}
        for place in places.keys() & self._unstored.keys():
            if place not in found or found[place].looked_at <= self._unstored[place].looked_at:
                found[place] = self._unstored[place]
        return {place: look for place, look in found.items() if look.covers(places[place])}

    def ask(
        self, environment: Environment, *, urgent: bool = False, enough: float = ALWAYS
    ) -> asyncio.Future[EnvironmentLook]:
        """Ask for a look at an environment; return its future result, which is never an exception.

        If a look was asked for already and has not begun, both callers get that one.
        """
        place = environment.site, environment.name
        queue = self._queues.setdefault(environment.lane, _Queue())
        request = queue.urgent.get(place) or queue.usual.pop(place, None)
        if request is None:
            request = _Request(environment, enough, asyncio.get_running_loop().create_future())
        request.enough = max(request.enough, enough)
        waiting = queue.urgent if urgent or place in queue.urgent else queue.usual
        waiting[place] = request
        if urgent:
            queue.asked.set()
        if queue.task is None:
            queue.task = asyncio.create_task(self._serve(environment.lane, queue), name="looks")
        return request.answer

    async def arriving(
        self,
        environments: Iterable[Environment],
        *,
        urgent: bool = False,
        enough: float = ALWAYS,
        limit: float | None = None,
    ) -> AsyncIterator[EnvironmentLook]:
        """Look at environments, and yield each look as it arrives, for `limit` seconds at most.

        Looks that arrive later are kept, too.
        """
        answers = [self.ask(each, urgent=urgent, enough=enough) for each in environments]
        try:
            for coming in asyncio.as_completed(answers, timeout=limit):
                yield await coming
        except TimeoutError:
            return

    async def _serve(self, lane: str, queue: _Queue) -> None:
        """Look at everything in a queue, a batch at a time."""
        while batch := queue.next():
            began = time.monotonic()
            await self._answer(batch)
            took = time.monotonic() - began
            if queue.urgent:
                await asyncio.sleep(URGENT_REST * took)
            elif queue.usual:
                await queue.rest(REST * took)
        del self._queues[lane]

    async def _answer(self, batch: Sequence[_Request]) -> None:
        """Answer a batch of requests: from the last look if it is new enough, else by another look."""
        try:
            known = await self.known([each.environment for each in batch])
        except StoreError:
            known = {}
        except Exception as defect:  # noqa: BLE001 (a queue that ended here would answer nobody any more)
            self._log.error("defect", task="looks", exc_info=defect)
            known = {}
        waiting = []
        for request in batch:
            look = known.get((request.environment.site, request.environment.name))
            if look is not None and look.looked_at >= request.enough:
                _settle(request, look)
            else:
                waiting.append(request)
        if waiting:
            await self._look(waiting, known)

    async def _look(self, batch: Sequence[_Request], known: Mapping[Place, EnvironmentLook]) -> None:
        environments = [each.environment for each in batch]
        at = self._clock()
        busy = {(*place, leg.key): leg.busy_since for place, look in known.items() for leg in look.legs}

        def busy_since(leg: Leg) -> float:
            return busy.get((leg.site, leg.environment, leg.key), 0.0)

        try:
            seen = await self._synchronizer.survey(environments, Remarks(self._log), busy_since)
            found = [[each.found for each in looks] for looks in seen]
        except Exception as defect:  # noqa: BLE001 (whoever waits for the look must get an answer)
            self._log.error("defect", task="looks", exc_info=defect)
            error = ListenerError("The listener has a defect. Its log has the details.")
            found = [[LegLook.failed(leg, error) for leg in each.legs] for each in environments]
        for request, legs in zip(batch, found, strict=True):
            environment = request.environment
            look = EnvironmentLook(environment.site, environment.name, at, tuple(legs))
            self.note(look)
            self._log_look(environment, look)
            _settle(request, look)

    def _log_look(self, environment: Environment, look: EnvironmentLook) -> None:
        summary = look.summary
        facts: dict[str, Any] = {} if summary.differs is None else {"drifted": summary.differs}
        if summary.error:
            facts["error"] = summary.error
        where = {"site": environment.site, "environment": environment.name}
        self._log.debug("looked", **where, state=summary.state.value, **facts)

    def note(self, look: EnvironmentLook) -> None:
        """Keep a look, unless a newer one at the same environment is known."""
        before = self._unstored.get(look.place)
        if before is None or before.looked_at <= look.looked_at:
            self._unstored[look.place] = look
            self._found.set()

    def note_run(self, environment: Environment, run: Run, outcome: Outcome, at: float) -> None:
        """Keep the result of a run as a look. If the run does not say enough, ask for a look.

        `at` is when the run's last step ended.
        """
        legs = {leg.key: leg for leg in outcome.legs}
        left = [legs.get(leg.key) for leg in environment.legs]
        if run.undoes is not None or not all(leg is not None and leg.done for leg in left):
            self.ask(environment)
            return
        found = tuple(
            self._left(leg, each)
            for leg, each in zip(environment.legs, left, strict=True)
            if each is not None
        )
        self.note(EnvironmentLook(environment.site, environment.name, at, found))

    def _left(self, leg: Leg, outcome: LegOutcome) -> LegLook:
        return LegLook(
            *leg.key,
            state=LookState.EQUAL,
            plan=PlanKind.UP_TO_DATE,
            live=outcome.live,
            branch=outcome.new or outcome.live,
            standing=self._synchronizer.standing(leg),
        )

    async def recall(self, environments: Sequence[Environment]) -> None:
        """Let the next runs expect what the stored looks have found; raise `StoreError`.

        An environment that was looked at since the start is left out.
        """
        for start in range(0, len(environments), RECALLED_AT_ONCE):
            some = {(each.site, each.name): each for each in environments[start : start + RECALLED_AT_ONCE]}
            for place, look in (await self._store.looks(some.keys())).items():
                self._synchronizer.recall(some[place], look)

    async def keep_forever(self) -> None:
        """Store new looks until cancelled."""
        while True:
            await self._found.wait()
            await asyncio.sleep(KEEP_AFTER)
            self._found.clear()
            try:
                await self.keep()
            except StoreError as error:
                self._log.warning("looks", error=error.code, message=error.message)
                self._found.set()
                await asyncio.sleep(STORE_PAUSE)

    async def keep(self) -> None:
        """Store the looks that are not stored yet; raise `StoreError`."""
        looks = list(self._unstored.values())
        for start in range(0, len(looks), KEPT_AT_ONCE):
            batch = looks[start : start + KEPT_AT_ONCE]
            await self._store.keep_looks(batch)
            for look in batch:
                if self._unstored.get(look.place) is look:
                    del self._unstored[look.place]

    async def prune(self, exists: Callable[[Place], bool]) -> None:
        """Delete the looks at environments that do not exist any more; raise `StoreError`."""
        gone = [each.place for each in await self._store.look_summaries() if not exists(each.place)]
        if gone:
            await self._store.forget_looks(gone)
        for place in gone:
            self._unstored.pop(place, None)

    async def close(self) -> None:
        """End the looks that are under way; store the others if the store answers."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._queues.clear()
        try:
            await self.keep()
        except StoreError as error:
            self._log.warning("looks", error=error.code, message=error.message)


def _settle(request: _Request, look: EnvironmentLook) -> None:
    if not request.answer.done():
        request.answer.set_result(look)
