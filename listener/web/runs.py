"""The history of runs, their logs, and what may be done to them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

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
from listener.web import pages
from listener.web.answers.runs import QueueView, RunsPage, RunView
from listener.web.answers.sites import DryRunOrRun, drift_of
from listener.web.bodies import BodyReader
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker, uncovered
from listener.web.preferences import preferred
from listener.web.protocol import EVENTS, NDJSON
from listener.web.replies import answer
from listener.web.routes import (
    ABOUT_ONE,
    ACCEPT,
    RUN_HEADERS,
    TO_BODIES,
    Answer,
    Parameter,
    Route,
    answered,
    problems,
)
from listener.web.sites import DryRun
from listener.web.streams import send_log
from listener.worker import Worker

_TAG = "Runs"
_SEQUENCE = {"type": "integer", "minimum": 0, "maximum": 2**31}
_FILTERS = (
    Parameter("site", "query", "only runs of this site", {"type": "string"}),
    Parameter("environment", "query", "only runs of this environment", {"type": "string"}),
    Parameter(
        "state",
        "query",
        "only runs in this state",
        {"type": "string", "enum": [each.value for each in State]},
    ),
)
_LOG = (
    ACCEPT,
    Parameter("Last-Event-ID", "header", "the last line that the client has", _SEQUENCE),
    Parameter("after", "query", "the same", _SEQUENCE),
    Parameter("follow", "query", "whether to wait for the run's end", {"type": "boolean", "default": True}),
)
_DONE_TO_A_RUN = (*problems(HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT), *ABOUT_ONE)
_GOES_ON = answered(RunView, "The run goes on.", HTTPStatus.ACCEPTED, headers=RUN_HEADERS)


class VisibleRuns:
    """Finds the run that a request names, if the caller may see it."""

    def __init__(self, gate: Gate, store: RunStore) -> None:
        self._gate = gate
        self._store = store

    async def asked(self, request: web.Request) -> tuple[Caller, Run]:
        """Return the caller and the run; raise `RunNotFoundError`, also for a run that they may not see."""
        caller = await self._gate.caller(request)
        try:
            run = await self._store.run(request.match_info["run"])
        except RunNotFoundError as error:
            # Recorded like a run that they may not see: otherwise the answers would differ.
            error.reason = "" if caller.admin else "there is no such run"
            raise
        if not caller.covers(run.site):
            raise RunNotFoundError(reason=uncovered(caller, run.site))
        return caller, run


class RunHistory:
    """Handles `GET /api/v1/runs`, one run, and its log."""

    def __init__(
        self,
        gate: Gate,
        visible: VisibleRuns,
        store: RunStore,
        sites: Sites,
        clock: Callable[[], float],
        stopping: asyncio.Event,
        *,
        concurrency: int,
    ) -> None:
        """Up to `concurrency` runs are carried out at a time: it decides when a waiting run may start."""
        self._gate = gate
        self._visible = visible
        self._store = store
        self._sites = sites
        self._clock = clock
        self._stopping = stopping
        self._concurrency = concurrency

    @Route(
        "GET",
        "/api/v1/runs",
        "list_runs",
        _TAG,
        (answered(RunsPage, "The page.", headers=("Link",)), *problems(HTTPStatus.BAD_REQUEST), *ABOUT_ONE),
        parameters=(*_FILTERS, *pages.PARAMETERS, pages.BEFORE),
    )
    async def history(self, request: web.Request) -> web.Response:
        """List runs, newest first."""
        caller = await self._gate.caller(request)
        page = pages.Page.asked(request)
        which = replace(_filter(request, page), sites=caller.visible)
        found, more = page.cut(await self._store.runs(which))
        if not found and which.site is not None:
            self._require_configured(caller, which.site, which.environment)
        view = RunsPage.of(found, more=more)
        return answer(view, headers=pages.link(request, view.next, *_FILTERS))

    @Route("GET", "/api/v1/runs/{run}", "show_run", _TAG, (answered(RunView, "The run."), *ABOUT_ONE))
    async def show(self, request: web.Request) -> web.Response:
        """Show one run, who asked for it, and its place in the queue."""
        _, run = await self._visible.asked(request)
        now = self._clock()
        triggers, position = await self._store.triggers(run.id), await self._store.queue_position(run.id, now)
        queue = None if position is None else QueueView.of(run, position, now, self._concurrency)
        return answer(RunView.of(run, triggers, queue))

    @Route(
        "GET",
        "/api/v1/runs/{run}/log",
        "watch_run",
        _TAG,
        (
            Answer(HTTPStatus.OK, "The log.", {NDJSON: None, EVENTS: None}, ("X-Run-Id",)),
            Answer(HTTPStatus.NO_CONTENT, "The run has ended, and the client has everything.", {}),
            *problems(HTTPStatus.BAD_REQUEST),
            *ABOUT_ONE,
        ),
        parameters=_LOG,
    )
    async def log(self, request: web.Request) -> web.StreamResponse:
        """Follow a run's log until the run ends: a JSON object a line, or server-sent events."""
        _, run = await self._visible.asked(request)
        form = preferred(request, (NDJSON, EVENTS))
        return await send_log(request, self._store, run, form, self._stopping)

    def _require_configured(self, caller: Caller, site: str, environment: str | None) -> None:
        """Raise `NotFoundError` for a misspelt name: an empty list would hide the mistake."""
        if not caller.covers(site):
            raise SiteNotFoundError(reason=uncovered(caller, site))
        known = self._sites.site(site)
        if environment is not None:
            known.environment(environment)


class RunControl:
    """Handles cancel, retry and rollback of a run."""

    def __init__(
        self,
        visible: VisibleRuns,
        store: RunStore,
        sites: Sites,
        worker: Worker,
        rollbacks: Rollbacks,
        calls: Calls,
        bodies: BodyReader,
        log: Log,
    ) -> None:
        self._visible = visible
        self._store = store
        self._sites = sites
        self._worker = worker
        self._rollbacks = rollbacks
        self._calls = calls
        self._bodies = bodies
        self._log = log

    @Route(
        "POST",
        "/api/v1/runs/{run}/cancel",
        "cancel_run",
        _TAG,
        (answered(RunView, "It is cancelled."), *_DONE_TO_A_RUN),
    )
    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a run whose branch has not moved."""
        caller, run = await self._visible.asked(request)
        only = None if caller.admin else await self._own(run, caller)
        ended = await self._worker.cancel(run.id, only)
        self._log_asked(request, caller, "cancel", run)
        return answer(RunView.of(ended, await self._store.triggers(run.id)))

    async def _own(self, run: Run, caller: Caller) -> frozenset[str]:
        """Return the triggers of a run; raise `ForbiddenError` unless all are the caller's own."""
        triggers = await self._store.triggers(run.id)
        # A hook may have the same name as a token.
        others = {t.actor for t in triggers if t.origin not in EXPLICIT or t.actor != caller.name}
        if others:
            raise ForbiddenError(
                f"The run serves others too ({', '.join(sorted(others))}): ask an admin to cancel it."
            )
        return frozenset(trigger.id for trigger in triggers)

    @Route(
        "POST",
        "/api/v1/runs/{run}/retry",
        "retry_run",
        _TAG,
        (answered(RunView, "The new run has ended.", headers=RUN_HEADERS), _GOES_ON, *_DONE_TO_A_RUN),
    )
    async def retry(self, request: web.Request) -> web.Response:
        """Start a new run in place of one that failed or was cancelled."""
        caller, run = await self._visible.asked(request)
        if run.state not in ENDED - {State.SUCCEEDED, State.SUPERSEDED}:
            raise ConflictError(f"The run is {run.state}: only a failed or cancelled run can be retried.")
        if run.undoes is not None:
            raise ConflictError(
                "A rollback can't be retried: a retry would sync.",
                remedy=f"roll back the run {run.undoes} again",
            )
        environment = self._sites.environment(run.site, run.environment)
        acceptance = await self._calls.request(environment, asker(request, caller), Origin.RETRY)
        return await self._calls.answer(await self._store.run(acceptance.runs[0]))

    @Route(
        "POST",
        "/api/v1/runs/{run}/rollback",
        "roll_back_run",
        _TAG,
        (
            answered(DryRunOrRun, "The rollback has ended; or what it would do.", headers=RUN_HEADERS),
            _GOES_ON,
            *problems(HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY),
            *TO_BODIES,
            *ABOUT_ONE,
        ),
        body=DryRun,
        body_required=False,
    )
    async def rollback(self, request: web.Request) -> web.Response:
        """Roll back what a run did, or show what that would do."""
        caller, run = await self._visible.asked(request)
        if (await self._bodies.read_as(request, DryRun, empty_allowed=True)).dry_run:
            self._log_asked(request, caller, "dry run", run)
            return answer(drift_of([look.found for look in await self._rollbacks.look(run)]))
        if not caller.admin:
            raise ForbiddenError("Only an admin may roll back. A dry run shows what that would do.")
        started = await self._rollbacks.request(run, asker(request, caller))
        return await self._calls.answer(started)

    def _log_asked(self, request: web.Request, caller: Caller, event: str, run: Run) -> None:
        who = asker(request, caller).facts
        self._log.info(event, run=run.id, site=run.site, environment=run.environment, **who)


def _filter(request: web.Request, page: pages.Page) -> RunFilter:
    query = request.query
    try:
        state = State(query["state"]) if "state" in query else None
    except ValueError as error:
        raise BadRequestError(f"state must be one of {', '.join(State)}.") from error
    return RunFilter(
        site=query.get("site"),
        environment=query.get("environment"),
        state=state,
        before=page.after or None,
        limit=page.limit + 1,
    )
