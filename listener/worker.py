"""Takes runs off the queue and carries them out, a bounded number at a time."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from listener.errors import (
    CancelledRunError,
    ConflictError,
    FencedError,
    ForbiddenError,
    HandedBackError,
    ListenerError,
    OnHoldError,
    RequestError,
    StoreError,
    StoreUnavailableError,
    SyncError,
    UnknownTargetError,
)
from listener.journal import Cleaner, Journal, Log
from listener.lanes import Lanes
from listener.progress import Progress
from listener.queue import RunStore
from listener.runs import Outcome, RetryPolicy, Run, State, retry
from listener.sites import Environment, Sites
from listener.sync import Synchronizer

POLL = 15.0
"""Seconds after which the queue is looked at even when nothing was signalled."""

STORE_PAUSE = 1.0
"""Seconds before a store that did not answer is asked again."""


CANCEL_TRIES = 10
CANCEL_PAUSE = 0.05
"""How often, and after how many seconds, a run is looked for that is about to be started."""

SET_BACK = 5.0
"""Seconds by which the clock must have gone back for that to matter."""

BEAT = 3.0
"""Seconds between two signs of life; a store that several listeners share gives a run up after three."""

HAND_BACK_LIMIT = 15.0
"""Seconds within which a cancelled run must be back in the queue; the next start takes up what is not."""


@dataclass(slots=True)
class _Active:
    """A run that this worker is carrying out.

    Only the attempt is ever cancelled; the whole goes on to write down how it ended.
    """

    run: Run
    environment: Environment | None
    """None where it is not configured any more."""
    progress: Progress
    entered: bool = False
    """Whether it counts on its hosts."""
    cancelled: bool = False
    attempt: "asyncio.Task[ListenerError | None] | None" = None
    whole: "asyncio.Task[None] | None" = None


class Worker:
    """Claims runs, one at a time for each (site, environment), and sees them to their end."""

    def __init__(
        self,
        store: RunStore,
        sites: Sites,
        synchronizer: Synchronizer,
        *,
        concurrency: int,
        per_host: int,
        policy: RetryPolicy,
        clock: Callable[[], float],
        log: Log,
        clean: Cleaner,
    ) -> None:
        self._store = store
        self._sites = sites
        self._synchronizer = synchronizer
        self._slots = asyncio.Semaphore(concurrency)
        self._lanes = Lanes(sites, per_host)
        self._policy = policy
        self._clock = clock
        self._log = log
        self._clean = clean
        self._active: dict[str, _Active] = {}
        self._handed_back = 0

    async def work(self) -> None:
        """Carry out runs until cancelled."""
        while True:
            await self._slots.acquire()
            try:
                run = await self._next()
            except BaseException:
                self._slots.release()
                raise
            environment = self._environment(run)
            active = self._active[run.id] = _Active(run, environment, Progress.of(run))
            # Before the next claim: it must know which hosts are taken.
            self._enter(active)
            active.whole = asyncio.create_task(self._carry_out(active), name=f"run {run.id}")

    async def _next(self) -> Run:
        """Wait for a run that can be claimed, and claim it."""
        signal = self._store.work
        while True:
            signal.clear()
            try:
                run = await self._claim()
                if run is not None:
                    return run
                due = await self._store.next_due(self._lanes.full())
            except StoreUnavailableError as error:
                self._log.log(40, "store", error=error.message)
                await asyncio.sleep(STORE_PAUSE)
                continue
            pause = POLL if due is None else min(POLL, max(0.0, due - self._clock()))
            try:
                async with asyncio.timeout(pause):
                    await signal.wait()
            except TimeoutError:
                pass

    async def _claim(self) -> Run | None:
        """Claim a run. Who is cancelled in the middle of it hands back what was claimed."""
        claim = asyncio.ensure_future(self._store.claim(self._clock(), self._lanes.full()))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            # What can't be handed back now is taken up at the next start.
            with contextlib.suppress(StoreError):
                run = await claim
                if run is not None:
                    now = self._clock()
                    await self._store.requeue(run, run.outcome or Outcome(), now, now, failed=False)
            raise

    async def beat(self) -> None:
        """Tell the store every few seconds what is being carried out here, until cancelled.

        What is not this listener's any more ends at once; what others have left is taken over.
        """
        set_back = _SetBack(self._clock)
        while True:
            await asyncio.sleep(BEAT)
            active = tuple(self._active.values())
            try:
                if set_back():
                    hastened = await self._store.hasten(self._clock())
                    self._log.log(30, "clock set back", hastened=hastened)
                held = await self._store.beat([each.run for each in active]) if active else frozenset()
                for run in await self._store.take_over(self._clock()):
                    self._log.log(30, "taken over", run=run.id, site=run.site, environment=run.environment)
            except StoreUnavailableError as error:
                self._log.log(30, "store", error=error.message)
                continue
            for each in active:
                if each.run.id not in held and each.run.id in self._active:
                    self._log.log(30, "lost", run=each.run.id)
                    _end(each)

    async def drain(self, limit: float) -> int:
        """Let running runs end for up to `limit` seconds; hand the others back, and return how many."""
        runs = {active.whole: active for active in self._active.values() if active.whole is not None}
        if not runs:
            return self._handed_back
        _, late = await asyncio.wait(runs, timeout=limit)
        for whole in late:
            _end(runs[whole])
        if late:
            await asyncio.wait(late, timeout=HAND_BACK_LIMIT)
        return self._handed_back

    async def cancel(self, run_id: str, only: Collection[str] | None = None) -> Run:
        """End a waiting or running run; raise `ConflictError` once its branch has moved.

        With the ids of triggers in `only`, raise `ForbiddenError` if it serves any other by now.
        """
        for _ in range(CANCEL_TRIES):
            try:
                return await self._cancel(run_id, only)
            except ConflictError:
                # Between waiting and running it is neither to be found in the queue nor here.
                if (await self._store.run(run_id)).state is not State.RUNNING:
                    raise
                if run_id not in self._active:
                    await asyncio.sleep(CANCEL_PAUSE)
        return await self._cancel(run_id, only)

    async def _cancel(self, run_id: str, only: Collection[str] | None) -> Run:
        active = self._active.get(run_id)
        if active is not None and active.whole is not None:
            # Nobody joins a running run, but somebody may have joined it before it was started.
            if only is not None and any(t.id not in only for t in await self._store.triggers(run_id)):
                raise ForbiddenError("The run has come to serve others too: ask an admin.")
            if not active.progress.moved and not active.cancelled:
                active.cancelled = True
                _end(active)
            await asyncio.wait({active.whole})
            run = await self._store.run(run_id)
            if run.state is State.CANCELLED:
                return run
        return await self._store.cancel(run_id, self._clock(), only)

    async def _carry_out(self, active: _Active) -> None:
        run, environment = active.run, active.environment
        try:
            host = ",".join(environment.hosts) if environment else ""
            journal = Journal(run, host, self._store, self._log, self._clean, self._clock)
            journal.note("start", attempt=run.attempt, waited=round(self._clock() - run.created_at, 3))
            active.attempt = asyncio.create_task(self._attempt(active, environment, journal))
            if active.cancelled:
                active.attempt.cancel()
            error = await _ended(active)
            # Before the run is put down: whoever that wakes must find the hosts free.
            self._leave(active)
            await self._settle(active, error, journal)
            self._handed_back += isinstance(error, HandedBackError)
        except FencedError as fenced:
            self._log.log(30, "fenced", run=run.id, error=fenced.message)
        except Exception as defect:  # noqa: BLE001 (a run that met a defect must end, not hang)
            self._log.log(40, "defect", run=run.id, exc_info=defect)
            await self._give_up(active)
        finally:
            self._leave(active)
            del self._active[run.id]
            self._slots.release()

    def _enter(self, active: _Active) -> None:
        if active.environment is not None:
            self._lanes.enter(active.environment)
            active.entered = True

    def _leave(self, active: _Active) -> None:
        if active.environment is not None and active.entered:
            self._lanes.leave(active.environment)
            active.entered = False

    async def _give_up(self, active: _Active) -> None:
        """End a run whose end could not be written down as it should be."""
        outcome = active.progress.outcome(ListenerError("The listener met a defect; its log has it."))
        with contextlib.suppress(StoreError):
            await self._store.finish(active.run, State.FAILED, outcome, self._clock())

    def _environment(self, run: Run) -> Environment | None:
        try:
            return self._sites.environment(run.site, run.environment)
        except RequestError:
            return None

    async def _attempt(
        self, active: _Active, environment: Environment | None, journal: Journal
    ) -> ListenerError | None:
        """Sync once; return the error that ended the attempt, None when environment and live are equal."""
        try:
            if environment is None:
                return UnknownTargetError()
            await self._go(active, environment, journal)
        except (SyncError, StoreUnavailableError) as error:
            return error
        except FencedError:
            raise
        except Exception as error:  # noqa: BLE001 (a run that met a defect must end, not hang)
            self._log.log(40, "defect", run=active.run.id, exc_info=error)
            return ListenerError("The sync met a defect of this program; the log has it.")
        return None

    async def _go(self, active: _Active, environment: Environment, journal: Journal) -> None:
        run, progress = active.run, active.progress

        async def keep() -> None:
            await self._store.keep(run, progress.outcome())

        if run.undoes is None:
            await self._synchronizer.sync(environment, run, journal, progress, keep)
        else:
            undone = await self._store.run(run.undoes)
            await self._synchronizer.roll_back(environment, run, undone, journal, progress, keep)

    async def _settle(self, active: _Active, error: ListenerError | None, journal: Journal) -> None:
        """Write down how the attempt ended, however long the store takes to answer."""
        outcome = active.progress.outcome(error)
        again = None
        if error is not None:
            again = retry(active.run, error, self._policy, random.random())  # noqa: S311 (jitter)
        _conclude(journal, active.run, outcome, error, again.delay if again else None)
        while True:
            try:
                if again is not None:
                    now = self._clock()
                    await self._store.requeue(
                        active.run, outcome, now + again.delay, now, failed=again.failed
                    )
                else:
                    await self._store.finish(active.run, _final(error), outcome, self._clock())
            except StoreUnavailableError as unavailable:
                self._log.log(40, "store", run=active.run.id, error=unavailable.message)
                await asyncio.sleep(STORE_PAUSE)
            else:
                return


class _SetBack:
    """Tells whether the clock was set back since it was last asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock(), time.monotonic()

    def __call__(self) -> bool:
        (wall, steady), self._last = self._last, (self._clock(), time.monotonic())
        return self._last[0] < wall + (self._last[1] - steady) - SET_BACK


def _end(active: _Active) -> None:
    """Cancel the attempt, if it is still going on."""
    if active.attempt is not None:
        active.attempt.cancel()


async def _ended(active: _Active) -> ListenerError | None:
    """Wait for the attempt, and return the error that ended it; being cancelled is one too."""
    assert active.attempt is not None  # noqa: S101 (made just before)
    try:
        return await active.attempt
    except asyncio.CancelledError:
        return CancelledRunError() if active.cancelled else HandedBackError()


def _final(error: ListenerError | None) -> State:
    if error is None:
        return State.SUCCEEDED
    return State.CANCELLED if isinstance(error, CancelledRunError | OnHoldError) else State.FAILED


def _told(outcome: Outcome) -> dict[str, Any]:
    """Return what became of the only leg, or of each of several."""
    legs = [
        {
            "plan": leg.plan,
            "old": leg.old,
            "new": leg.new,
            "live": leg.live,
            "removed_count": leg.removed_count,
        }
        for leg in outcome.legs
    ]
    if len(legs) == 1:
        return legs[0]
    named = zip(outcome.legs, legs, strict=True)
    return {"legs": [{"repository": leg.repository, "error": leg.error, **facts} for leg, facts in named]}


def _conclude(
    journal: Journal, run: Run, outcome: Outcome, error: ListenerError | None, delay: float | None
) -> None:
    """Write the canonical line of a run that ended, or the line that says when it goes on."""
    facts = {**_told(outcome), "attempt": run.attempt, "durations": dict(outcome.durations)}
    if run.undoes is not None:
        facts["undoes"] = run.undoes
    if error is not None:
        facts |= {"error": error.code, "message": error.message, "remedy": error.remedy}
    if delay is not None:
        journal.note("again", level="warning", in_seconds=round(delay, 3), **facts)
        return
    state = _final(error)
    level = {State.SUCCEEDED: "info", State.CANCELLED: "warning"}.get(state, "error")
    journal.note("run", level=level, outcome=state.value, **facts)
