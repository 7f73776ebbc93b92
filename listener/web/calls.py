"""Direct calls for a sync: the caller waits for the run, gets it at once, or follows its log."""

import asyncio
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web

from listener import follow
from listener.intake import Intake
from listener.queue import Acceptance, RunStore
from listener.runs import Asker, Origin, Run, State
from listener.sites import Environment
from listener.web.answers.runs import RunView
from listener.web.answers.view import Message
from listener.web.preferences import Preferences, preferred
from listener.web.protocol import EVENTS, JSON, NDJSON
from listener.web.replies import RETRY_AFTER, answer
from listener.web.streams import LogStream, send_trigger, unless

RUNS = "/api/v1/runs"


class Calls:
    """Takes calls for one environment, and answers each as its caller prefers."""

    def __init__(self, intake: Intake, store: RunStore, *, wait: float, stopping: asyncio.Event) -> None:
        """Let a caller wait up to `wait` seconds, and not beyond a stop of the listener."""
        self._intake = intake
        self._store = store
        self._wait = wait
        self._stopping = stopping

    async def request(
        self, environment: Environment, asker: Asker, origin: Origin = Origin.API
    ) -> Acceptance:
        """Accept a call for one environment."""
        return await self._intake.request(environment, origin, asker)

    async def crafter(
        self, request: web.Request, environment: Environment, asker: Asker
    ) -> web.StreamResponse:
        """Answer a call in Studio's words."""
        preferences = Preferences.of(request)
        form = preferred(request, (JSON, NDJSON, EVENTS))
        acceptance = await self.request(environment, asker)
        wait = preferences.wait
        if form != JSON:
            return await self._stream(request, acceptance, form, preferences)
        if preferences.respond_async and wait is None:
            return _accepted(acceptance.runs[0], preferences)
        run = await self._served(acceptance, self._wait if wait is None else wait)
        if run.state not in _ANSWERED and preferences.respond_async:
            return _accepted(run.id, preferences)
        status, message = self._verdict(run)
        headers = {"X-Run-Id": run.id, **preferences.applied}
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = RETRY_AFTER
        return answer(Message(message=message), status, headers)

    async def native(self, request: web.Request, environment: Environment, asker: Asker) -> web.Response:
        """Answer a call with its run: at once, or after up to `Prefer: wait` seconds."""
        preferences = Preferences.of(request)
        acceptance = await self.request(environment, asker)
        run = await self._served(acceptance, preferences.wait or 0)
        return await self.answer(run, preferences)

    async def answer(self, run: Run, preferences: Preferences | None = None) -> web.Response:
        """Answer with a run: 200 if it has ended, else 202."""
        headers = {"X-Run-Id": run.id, "Location": f"{RUNS}/{run.id}"}
        if preferences is not None:
            headers |= preferences.applied
        view = RunView.of(run, await self._store.triggers(run.id))
        return answer(view, HTTPStatus.OK if run.state in _ANSWERED else HTTPStatus.ACCEPTED, headers)

    async def _served(self, acceptance: Acceptance, wait: float) -> Run:
        """Wait up to `wait` seconds for the run that serves the call; return it as it is then."""
        trigger = acceptance.triggers[0]
        try:
            async with asyncio.timeout(wait):
                return await unless(self._stopping, follow.served(self._store, trigger))
        except TimeoutError:
            return await self._store.serving(trigger)

    async def _stream(
        self, request: web.Request, acceptance: Acceptance, form: str, preferences: Preferences
    ) -> web.StreamResponse:
        trigger = acceptance.triggers[0]
        applied = replace(preferences, respond_async=False).applied
        stream = LogStream(form, {"X-Run-Id": acceptance.runs[0], **applied})
        async with stream.sent(request) as response:
            try:
                async with asyncio.timeout(self._wait if preferences.wait is None else preferences.wait):
                    run = await unless(self._stopping, send_trigger(stream, self._store, trigger))
            except TimeoutError:
                run = await self._store.serving(trigger)
            status, message = self._verdict(run)
            await stream.end({"status": status, "message": message, "run": run.id})
        return response

    def _verdict(self, run: Run) -> tuple[int, str]:
        """Return the status and message for a run in Studio's words; 503 if the listener stops first."""
        if run.state is State.SUCCEEDED:
            return HTTPStatus.OK, "OK"
        if self._stopping.is_set() and run.state not in _ANSWERED:
            return HTTPStatus.SERVICE_UNAVAILABLE, "Service unavailable"
        return HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"


_ANSWERED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


def _accepted(run_id: str, preferences: Preferences) -> web.Response:
    headers = {"X-Run-Id": run_id, "Location": f"{RUNS}/{run_id}", **preferences.applied}
    return answer(Message(message="Accepted"), HTTPStatus.ACCEPTED, headers)
