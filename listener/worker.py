"""The worker: it claims runs and carries them out, a limited number at a time."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from listener.advance import Early
from listener.attempts import Attempt, Attempts
from listener.errors import (
    CancelledRunError,
    ConflictError,
    FencedError,
    ForbiddenError,
    HandedBackError,
    ListenerError,
    RequestError,
    StoreError,
    StoreUnavailableError,
    SyncError,
    UnknownTargetError,
)
from listener.journal import Journal, Log, equal_looks
from listener.lanes import Lanes
from listener.outcomes import Outcome, alike
from listener.progress import Progress
from listener.queue import RunStore
from listener.redaction import Cleaner
from listener.runs import Retry, RetryPolicy, Run, State, final_state, retry
from listener.sites import Environment, Sites
from listener.sync import Synchronizer

T = TypeVar("T")

POLL = 15.0
"""Seconds after which the worker looks at the queue even without a signal."""

STORE_PAUSE = 1.0
"""Seconds before the worker asks a store again that did not answer."""


CANCEL_TRIES = 10
CANCEL_PAUSE = 0.05
"""How often a cancel looks for a run that is being started, and the seconds between two looks."""

SET_BACK = 5.0
"""Seconds. If the clock goes back by less, nothing is done about it."""

BEAT = 3.0
"""Seconds between two beats. On a shared store, a run may be taken over after three missing ones."""

HAND_BACK_LIMIT = 15.0
"""Seconds in which a drained run must be back in the queue. The next start recovers what is not."""

OnEnd = Callable[[Environment, Run, Outcome, float], None]
"""Is called with the outcome of a run, and the time when its last step ended, after that is stored."""


def _nobody(_environment: Environment, _run: Run, _outcome: Outcome, _at: float) -> None:
    pass


class Worker:
    """Claims runs, one at a time for each (site, environment), and carries each out to its end."""

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
        on_end: OnEnd = _nobody,
    ) -> None:
        self._store = store
        self._sites = sites
        self._on_end = on_end
        self._synchronizer = synchronizer
        self._slots = asyncio.Semaphore(concurrency)
        self._lanes = Lanes(sites, per_host)
        self._policy = policy
        self._clock = clock
        self._log = log
        self._clean = clean
        self._active = Attempts()
        self._handed_back = 0
        self._early = Early()
        self._taking = False
        """Whether an ended run gives its place to the next one: only while the worker takes runs."""
        self._more = True
        """Whether the last look at the queue found a run, so that there may be another one."""

    async def work(self) -> None:
        """Carry out runs until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._taking = True
        try:
            while True:
                await self._slots.acquire()
                try:
                    self._begin(await self._next())
                except BaseException:
                    self._slots.release()
                    raise
        finally:
            self._taking = False
            self._early.withdraw()

    def _begin(self, run: Run) -> None:
        """Start to carry out a claimed run. It keeps its slot until it has ended."""
        intended = run.outcome if run.attempt == 1 else None
        if intended is not None:
            # Nothing of it was done yet: taken for an earlier attempt's work, it would cost a look.
            run = replace(run, outcome=None)
        active = Attempt(run, self._environment(run), Progress.of(run), intended)
        active.early = self._early.taken(run)
        self._active.add(active)
        # Counted before the next claim: it could start too many runs on these hosts otherwise.
        self._enter(active)
        active.whole = asyncio.create_task(self._carry_out(active), name=f"run {run.id}")

    async def _next(self) -> Run:
        """Wait for a run that may start, and return it claimed."""
        while True:
            # Cleared before the look at the queue: a run that comes during the look must end the wait below.
            self._store.work.clear()
            if self._lanes.all_full():
                # No run may start. Without this, each accepted delivery of a burst would cost a query.
                await self._woken(POLL)
                continue
            try:
                due = None if self._more else await self._store.next_due(self._lanes.full())
                if self._more or (due is not None and due <= self._clock()):
                    run = await self._owned(
                        self._store.claim(self._clock(), self._lanes.full(), self._intent)
                    )
                    self._more = run is not None
                else:
                    run = await self._offer(POLL if due is None else min(POLL, due - self._clock()))
            except StoreUnavailableError as error:
                self._log.error("store", error=error.message)
                await asyncio.sleep(STORE_PAUSE)
                continue
            if run is not None:
                return run

    async def _offer(self, pause: float) -> Run | None:
        """Wait up to `pause` seconds for work; return the run that an acceptance has claimed in this time."""
        offer = self._store.offer(self._lanes.full, self._intent)
        try:
            await self._woken(pause)
        except asyncio.CancelledError:
            await self._hand_back(offer.withdraw())
            raise
        return await self._owned(offer.withdraw())

    async def _woken(self, pause: float) -> None:
        """Wait up to `pause` seconds until a run may have become claimable."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._store.work.wait()

    async def _owned(self, claim: Awaitable[Run | None]) -> Run | None:
        """Return the claimed run. If cancelled in between, put it back: nobody would carry it out."""
        claim = asyncio.ensure_future(claim)
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            await self._hand_back(claim)
            raise

    async def _hand_back(self, claim: Awaitable[Run | None]) -> None:
        # If this fails, the next start recovers the run, or another listener takes it over.
        with contextlib.suppress(StoreError):
            run = await claim
            if run is not None:
                await self._put_back(run)

    async def _put_back(self, run: Run) -> None:
        """Queue a claimed run again that was not begun."""
        now = self._clock()
        outcome = run.outcome if run.attempt > 1 else None
        await self._store.requeue(run, outcome or Outcome(), now, now, failed=False)

    async def beat(self) -> None:
        """Extend the leases of the active runs every few seconds, until cancelled.

        Runs that belong to another listener by now are ended here. Runs that others have left are taken over.
        This goes on during a drain: without it, another listener would take over a run that drains.
        """
        set_back = _SetBack(self._clock)
        while True:
            await asyncio.sleep(BEAT)
            active = tuple(self._active.newest().values())
            try:
                if set_back():
                    hastened = await self._store.hasten(self._clock())
                    self._log.warning("clock set back", hastened=hastened)
                held = await self._store.beat([each.run for each in active]) if active else frozenset()
                for run in await self._store.take_over(self._clock()):
                    self._log.warning("taken over", run=run.id, site=run.site, environment=run.environment)
            except StoreUnavailableError as error:
                self._log.warning("store", error=error.message)
                continue
            for each in active:
                if each.run.id not in held and each in self._active:
                    self._log.warning("lost", run=each.run.id)
                    each.end()

    async def drain(self, limit: float) -> int:
        """Wait up to `limit` seconds for the active runs. Put the rest back; return how many."""
        runs = {active.whole: active for active in self._active if active.whole is not None}
        if not runs:
            return self._handed_back
        _, late = await asyncio.wait(runs, timeout=limit)
        for whole in late:
            runs[whole].end()
        if late:
            await asyncio.wait(late, timeout=HAND_BACK_LIMIT)
        return self._handed_back

    async def cancel(self, run_id: str, only: Collection[str] | None = None) -> Run:
        """End a waiting or running run; raise `ConflictError` once its branch has moved.

        `only` names triggers: if the run serves another one by now, raise `ForbiddenError`.
        """
        for _ in range(CANCEL_TRIES):
            try:
                return await self._cancel(run_id, only)
            except ConflictError:
                # A run that is claimed at this moment is neither in the queue nor here yet.
                if (await self._store.run(run_id)).state is not State.RUNNING:
                    raise
                if run_id not in self._active.newest():
                    await asyncio.sleep(CANCEL_PAUSE)
        return await self._cancel(run_id, only)

    async def _cancel(self, run_id: str, only: Collection[str] | None) -> Run:
        active = self._active.newest().get(run_id)
        if active is not None and active.whole is not None:
            # Nobody joins a running run, but somebody may have joined it before it started.
            if only is not None and any(t.id not in only for t in await self._store.triggers(run_id)):
                raise ForbiddenError("The run serves others too: ask an admin.")
            if not active.progress.moved and not active.progress.cancelled:
                active.progress.cancelled = True
                active.end()
            await asyncio.wait({active.whole})
            run = await self._store.run(run_id)
            if run.state is State.CANCELLED:
                return run
        return await self._store.cancel(run_id, self._clock(), only)

    async def _carry_out(self, active: Attempt) -> None:
        run = active.run
        try:
            await self._alone(active)
            host = ",".join(active.environment.hosts) if active.environment else ""
            journal = Journal(run, host, self._store, self._log, self._clean, self._clock)
            journal.begin()
            error = await self._synced(active, journal)
            await self._settle(active, error, journal)
            self._handed_back += isinstance(error, HandedBackError)
        except FencedError as fenced:
            self._log.warning("fenced", run=run.id, error=fenced.message)
            # Its end was not stored here, so nothing else signals that its hosts are free.
            self._leave(active)
            self._store.work.set()
        except Exception as defect:  # noqa: BLE001 (after a defect, the run must end and not hang)
            self._log.error("defect", run=run.id, exc_info=defect)
            await self._give_up(active)
        finally:
            if active.early is not None:
                active.early.withdraw()
            self._leave(active)
            self._active.remove(active)
            if active.following is None:
                self._slots.release()
            else:
                self._begin(active.following)

    async def _alone(self, active: Attempt) -> None:
        """End the earlier attempts at the environment that still sync here, and wait for them.

        They have lost their runs: a lease has expired, or a reply of the store was lost. Two attempts must
        not move one branch at the same time.
        """
        for earlier in self._active.before(active):
            self._log.warning("lost", run=earlier.run.id)
            earlier.end()
            await earlier.ended()

    async def _synced(self, active: Attempt, journal: Journal) -> ListenerError | None:
        """Sync, and return the error that ended it. A cancel is an error, too."""
        active.sync = asyncio.create_task(self._attempt(active, journal))
        if active.ending:
            active.sync.cancel()
        try:
            return await active.sync
        except asyncio.CancelledError:
            return CancelledRunError() if active.progress.cancelled else HandedBackError()

    def _enter(self, active: Attempt) -> None:
        if active.environment is not None:
            self._lanes.enter(active.environment)
            active.entered = True

    def _leave(self, active: Attempt) -> None:
        if active.environment is not None and active.entered:
            if self._lanes.all_full():
                # All hosts were full, so the worker waits for this signal, and not for the store's.
                self._store.work.set()
            self._lanes.leave(active.environment)
            active.entered = False

    async def _give_up(self, active: Attempt) -> None:
        """End a run as failed after a defect in the code that ends it."""
        self._leave(active)
        outcome = active.progress.outcome(
            ListenerError("The listener has a defect. Its log has the details.")
        )
        try:
            await self._written(
                active, lambda: self._store.finish(active.run, State.FAILED, outcome, self._clock())
            )
        except FencedError as fenced:
            self._log.warning("fenced", run=active.run.id, error=fenced.message)
        except Exception as defect:  # noqa: BLE001 (nobody awaits this task: the error would be lost)
            self._log.error("defect", run=active.run.id, exc_info=defect)

    def _intent(self, run: Run) -> Outcome | None:
        """Return what a claimed run will do first, if that is known. The store calls it in its own thread.

        The host begins while the claim is being committed. It moves nothing before the run says go.
        """
        environment = self._environment(run)
        intended = None if environment is None else self._synchronizer.intent(environment, run)
        if environment is not None and intended is not None:
            self._loop.call_soon_threadsafe(self._begin_early, environment, run)
        return intended

    def _begin_early(self, environment: Environment, run: Run) -> None:
        self._early.begin(run, self._synchronizer.begin(environment, run))

    def _environment(self, run: Run) -> Environment | None:
        try:
            return self._sites.environment(run.site, run.environment)
        except RequestError:
            return None

    async def _attempt(self, active: Attempt, journal: Journal) -> ListenerError | None:
        """Sync once; return the error that ended the attempt. None: the environment is equal to live."""
        try:
            if active.environment is None:
                return UnknownTargetError()
            await self._go(active, active.environment, journal)
        except (SyncError, StoreUnavailableError) as error:
            return error
        except FencedError:
            raise
        except Exception as error:  # noqa: BLE001 (after a defect, the run must end and not hang)
            self._log.error("defect", run=active.run.id, exc_info=error)
            return ListenerError(
                "The sync has failed because of a defect of this program. The log has the details."
            )
        return None

    async def _go(self, active: Attempt, environment: Environment, journal: Journal) -> None:
        run, progress = active.run, active.progress

        async def keep() -> None:
            outcome, intended, active.intended = progress.outcome(), active.intended, None
            # The transaction that claimed the run may have stored it already.
            if intended is None or outcome.legs != intended.legs:
                await self._store.keep(run, outcome)

        if run.undoes is None:
            await self._synchronizer.sync(environment, run, journal, progress, keep, active.early)
        else:
            undone = await self._store.run(run.undoes)
            await self._synchronizer.roll_back(environment, run, undone, journal, progress, keep)

    async def _settle(self, active: Attempt, error: ListenerError | None, journal: Journal) -> None:
        """Store how the attempt ended. Try again until the store answers."""
        ended_at, outcome = self._clock(), active.progress.outcome(error)
        again = None
        if error is not None:
            again = retry(active.run, error, self._policy, random.random())  # noqa: S311 (jitter)
        if again is not None and not again.failed and journal.silent and alike(active.run.outcome, outcome):
            # A busy repository is looked at many times a minute. Looks that find the same are only counted.
            outcome = replace(outcome, equal_looks=equal_looks(active.run) + 1)
        else:
            journal.conclude(outcome, error, again.delay if again else None)
        if again is None and active.environment is not None and self._is_wanted(active.environment):
            state, environment = final_state(error), active.environment
            await self._written(active, lambda: self._hand_on(active, environment, state, outcome))
        else:
            # Before the end is stored: that wakes the next run, which must find the hosts free.
            self._leave(active)
            await self._written(active, lambda: self._ending(active.run, outcome, error, again))
        if again is None and active.environment is not None:
            self._on_end(active.environment, active.run, outcome, ended_at)

    def _is_wanted(self, environment: Environment) -> bool:
        """Return whether a waiting run may need the place of one that ends.

        If not, the worker has claimed already all that could be claimed.
        """
        return self._taking and (self._slots.locked() or environment.lane in self._lanes.full())

    async def _hand_on(
        self, active: Attempt, environment: Environment, state: State, outcome: Outcome
    ) -> None:
        """End the run and claim the next one for its place, in one transaction: a commit and a wait less."""
        # The ended run is counted on its hosts until then: else the worker could give the place away, too.
        full = self._lanes.full_without(environment)
        run = await self._store.finish_and_claim(
            active.run, state, outcome, self._clock(), full, self._intent
        )
        self._leave(active)
        if run is not None and not self._taking:
            with contextlib.suppress(StoreError):
                await self._put_back(run)
            return
        active.following = run
        following = None if run is None else self._environment(run)
        if following is None or following.lane != environment.lane:
            # The worker may have looked at the queue before this host was free.
            self._store.work.set()

    async def _ending(
        self, run: Run, outcome: Outcome, error: ListenerError | None, again: Retry | None
    ) -> None:
        """End the run, or put it back if it is tried again."""
        now = self._clock()
        if again is not None:
            await self._store.requeue(run, outcome, now + again.delay, now, failed=again.failed)
        else:
            await self._store.finish(run, final_state(error), outcome, now)

    async def _written(self, active: Attempt, write: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Write until the store answers. The fence refuses the repetition of a write whose reply was lost."""
        while True:
            try:
                return await write()
            except StoreUnavailableError as error:
                self._log.error("store", run=active.run.id, error=error.message)
                await asyncio.sleep(STORE_PAUSE)


class _SetBack:
    """Returns whether the clock was set back since the last call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock(), time.monotonic()

    def __call__(self) -> bool:
        (wall, steady), self._last = self._last, (self._clock(), time.monotonic())
        return self._last[0] < wall + (self._last[1] - steady) - SET_BACK
