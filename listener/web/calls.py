"""Answering a direct call: wait for its trigger, answer at once, or stream the log of what it started."""

import asyncio
from dataclasses import replace

from aiohttp import web

from listener import follow
from listener.access import Caller
from listener.intake import Intake
from listener.queue import Acceptance, RunStore
from listener.runs import Origin, Run, State
from listener.sites import Environment
from listener.web import views
from listener.web.preferences import EVENTS, JSON, NDJSON, Preferences, preferred
from listener.web.streams import LogStream, send_trigger, unless

RUNS = "/api/v1/runs"


class Calls:
    """Takes calls for one environment and answers them as their callers prefer."""

    def __init__(self, intake: Intake, store: RunStore, *, wait: float, stopping: asyncio.Event) -> None:
        self._intake = intake
        self._store = store
        self._wait = wait
        self._stopping = stopping

    async def request(
        self, environment: Environment, caller: Caller, origin: Origin = Origin.API
    ) -> Acceptance:
        """Accept a call for one environment."""
        return await self._intake.request(environment, origin, caller.name)

    async def crafter(
        self, request: web.Request, environment: Environment, caller: Caller
    ) -> web.StreamResponse:
        """Answer a call in Studio's words."""
        preferences = Preferences.of(request)
        form = preferred(request, (JSON, NDJSON, EVENTS))
        acceptance = await self.request(environment, caller)
        wait = preferences.wait
        if form != JSON:
            return await self._stream(request, acceptance, form, preferences)
        if preferences.respond_async and wait is None:
            return _accepted(acceptance.runs[0], preferences)
        run = await self._served(acceptance, self._wait if wait is None else wait)
        if run.state not in _ANSWERED and preferences.respond_async:
            return _accepted(run.id, preferences)
        status, message = _verdict(run)
        return web.json_response(
            {"message": message}, status=status, headers={"X-Run-Id": run.id, **preferences.applied}
        )

    async def native(self, request: web.Request, environment: Environment, caller: Caller) -> web.Response:
        """Answer a call with its run: at once, or after up to `Prefer: wait` seconds."""
        preferences = Preferences.of(request)
        acceptance = await self.request(environment, caller)
        run = await self._served(acceptance, preferences.wait or 0)
        return await self.answer(run, preferences)

    async def answer(self, run: Run, preferences: Preferences | None = None) -> web.Response:
        """Answer with a run: 200 when it has ended, 202 while it has not."""
        headers = {"X-Run-Id": run.id, "Location": f"{RUNS}/{run.id}"}
        if preferences is not None:
            headers |= preferences.applied
        view = views.run(run, await self._store.triggers(run.id))
        return web.json_response(view, status=200 if run.state in _ANSWERED else 202, headers=headers)

    async def _served(self, acceptance: Acceptance, wait: float) -> Run:
        """Wait up to so many seconds for the call's run, and return it as it is then."""
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
            status, message = _verdict(run)
            await stream.end({"status": status, "message": message, "run": run.id})
        return response


_ANSWERED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


def _verdict(run: Run) -> tuple[int, str]:
    """Return what Studio's API says of a run: done, or not."""
    return (200, "OK") if run.state is State.SUCCEEDED else (500, "Internal server error")


def _accepted(run_id: str, preferences: Preferences) -> web.Response:
    headers = {"X-Run-Id": run_id, "Location": f"{RUNS}/{run_id}", **preferences.applied}
    return web.json_response({"message": "Accepted"}, status=202, headers=headers)
