"""The history of runs, their logs, and what may be done to them."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

from aiohttp import web

from listener.access import Caller
from listener.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    RunNotFoundError,
    SiteNotFoundError,
)
from listener.journal import Log
from listener.queue import RunFilter, RunStore
from listener.rollback import Rollbacks
from listener.runs import ENDED, EXPLICIT, Origin, Run, State
from listener.sites import Sites
from listener.web import bodies, pages, views
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker, uncovered
from listener.web.preferences import preferred
from listener.web.protocol import EVENTS, NDJSON
from listener.web.streams import send_log
from listener.worker import Worker


class Runs:
    """Handles `/api/v1/runs`."""

    def __init__(
        self,
        gate: Gate,
        sites: Sites,
        store: RunStore,
        worker: Worker,
        calls: Calls,
        rollbacks: Rollbacks,
        stopping: asyncio.Event,
        *,
        clock: Callable[[], float],
        log: Log,
        concurrency: int,
        body_timeout: float,
    ) -> None:
        self._clock = clock
        self._log = log
        self._concurrency = concurrency
        self._rollbacks = rollbacks
        self._body_timeout = body_timeout
        self._stopping = stopping
        self._gate = gate
        self._sites = sites
        self._store = store
        self._worker = worker
        self._calls = calls

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes."""
        yield web.get("/api/v1/runs", self.history)
        yield web.get("/api/v1/runs/{run}", self.show)
        yield web.get("/api/v1/runs/{run}/log", self.log)
        yield web.post("/api/v1/runs/{run}/cancel", self.cancel)
        yield web.post("/api/v1/runs/{run}/retry", self.retry)
        yield web.post("/api/v1/runs/{run}/rollback", self.rollback)

    async def history(self, request: web.Request) -> web.Response:
        """Answer a page of the history, newest first, and where the next one starts."""
        caller = await self._gate.caller(request)
        which = replace(_filter(request), sites=caller.visible)
        found = await self._store.runs(which)
        if not found and which.site is not None:
            self._demand_configured(caller, which.site, which.environment)
        following = pages.following(found, which.limit)
        return web.json_response({"runs": [views.run(run) for run in found], "before": following})

    async def show(self, request: web.Request) -> web.Response:
        """Answer one run and its triggers."""
        _, run = await self._visible(request)
        view = views.run(run, await self._store.triggers(run.id))
        now = self._clock()
        queue_position = await self._store.queue_position(run.id, now)
        if queue_position is not None:
            view["queue"] = views.queue(run, queue_position, now, self._concurrency)
        return web.json_response(view)

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Answer a run's log, live until the run has ended."""
        _, run = await self._visible(request)
        form = preferred(request, (NDJSON, EVENTS))
        return await send_log(request, self._store, run, form, self._stopping)

    async def cancel(self, request: web.Request) -> web.Response:
        """End a run whose branch has not moved."""
        caller, run = await self._visible(request)
        only = None if caller.admin else await self._own(run, caller)
        ended = await self._worker.cancel(run.id, only)
        self._log_asked(request, caller, "cancel", run)
        return web.json_response(views.run(ended, await self._store.triggers(run.id)))

    async def _own(self, run: Run, caller: Caller) -> frozenset[str]:
        """Return the triggers of a run, all of which must be the caller's own."""
        triggers = await self._store.triggers(run.id)
        # A hook may have a token's name.
        others = {t.actor for t in triggers if t.origin not in EXPLICIT or t.actor != caller.name}
        if others:
            raise ForbiddenError(f"The run serves others too ({', '.join(sorted(others))}): ask an admin.")
        return frozenset(trigger.id for trigger in triggers)

    async def retry(self, request: web.Request) -> web.Response:
        """Start a new run in the place of one that has failed or was cancelled."""
        caller, run = await self._visible(request)
        if run.state not in ENDED - {State.SUCCEEDED, State.SUPERSEDED}:
            raise ConflictError(f"The run is {run.state}: only a failed or cancelled one is tried again.")
        if run.undoes is not None:
            raise ConflictError(
                "The run is a rollback, and is not tried again: that would sync.",
                remedy=f"ask for the rollback of the run {run.undoes} again",
            )
        environment = self._sites.environment(run.site, run.environment)
        acceptance = await self._calls.request(environment, asker(request, caller), Origin.RETRY)
        return await self._calls.answer(await self._store.run(acceptance.runs[0]))

    async def rollback(self, request: web.Request) -> web.Response:
        """Take back what a run did, or answer what that would do."""
        caller, run = await self._visible(request)
        if await bodies.dry_run(request, seconds=self._body_timeout):
            self._log_asked(request, caller, "dry run", run)
            return web.json_response(views.looks(await self._rollbacks.look(run)))
        if not caller.admin:
            raise ForbiddenError("Only an admin rolls back; see what it would do with dry_run.")
        started = await self._rollbacks.request(run, asker(request, caller))
        return await self._calls.answer(started)

    def _demand_configured(self, caller: Caller, site: str, environment: str | None) -> None:
        """Raise `NotFoundError` where there can be no runs: a name that is misspelt is no empty history."""
        if not caller.covers(site):
            raise SiteNotFoundError(reason=uncovered(caller, site))
        known = self._sites.site(site)
        if environment is not None:
            known.environment(environment)

    async def _visible(self, request: web.Request) -> tuple[Caller, Run]:
        caller = await self._gate.caller(request)
        try:
            run = await self._store.run(request.match_info["run"])
        except RunNotFoundError as error:
            # It is put on record like a run that they may not see: the answers do not differ.
            error.reason = "" if caller.admin else "there is no such run"
            raise
        if not caller.covers(run.site):
            raise RunNotFoundError(reason=uncovered(caller, run.site))
        return caller, run

    def _log_asked(self, request: web.Request, caller: Caller, event: str, run: Run) -> None:
        who = asker(request, caller).facts
        self._log.info(event, run=run.id, site=run.site, environment=run.environment, **who)


def _filter(request: web.Request) -> RunFilter:
    query = request.query
    try:
        state = State(query["state"]) if "state" in query else None
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    return RunFilter(
        site=query.get("site"),
        environment=query.get("environment"),
        state=state,
        before=query.get("before"),
        limit=pages.limit(request),
    )
