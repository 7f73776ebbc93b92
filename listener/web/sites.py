"""Sites and their environments: how they stand, and what may be asked of them."""

import contextlib
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from pydantic import Field

from listener.access import Caller
from listener.directory import Directory
from listener.intake import Intake
from listener.journal import Log
from listener.queue import LogLine
from listener.sites import Environment
from listener.web import pages
from listener.web.answers.runs import RunView
from listener.web.answers.sites import (
    DryRunOrRun,
    Held,
    HoldView,
    Released,
    SitesPage,
    SitesPageEnd,
    SiteView,
)
from listener.web.answers.view import Body
from listener.web.bodies import BodyReader
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker
from listener.web.preferences import preferred
from listener.web.protocol import EVENTS, JSON, NDJSON
from listener.web.replies import answer
from listener.web.routes import (
    ABOUT_ONE,
    ACCEPT,
    PREFER,
    RUN_HEADERS,
    TO_BODIES,
    TO_CALLERS,
    Answer,
    Route,
    answered,
    problems,
)
from listener.web.standings import FreshPage, Standings
from listener.web.streams import LogStream

_TAG = "Sites"
_FORMS = (JSON, NDJSON, EVENTS)
_VARY = {"Vary": "Accept"}
_ONE = "/api/v1/sites/{site}/environments/{environment}"


class DryRun(Body):
    """Whether to answer what would be done, and do nothing."""

    dry_run: bool = Field(False, examples=[True])


class HoldBody(Body):
    """Why an environment is frozen."""

    reason: str = Field(
        min_length=1, max_length=500, pattern=r"\S", examples=["acceptance test until Friday"]
    )


class SiteRoutes:
    """Handles `/api/v1/sites`."""

    def __init__(self, gate: Gate, standings: Standings) -> None:
        self._gate = gate
        self._standings = standings

    @Route(
        "GET",
        "/api/v1/sites",
        "list_sites",
        _TAG,
        (
            Answer(HTTPStatus.OK, "The page.", {JSON: SitesPage, NDJSON: None, EVENTS: None}, ("Link",)),
            *problems(HTTPStatus.BAD_REQUEST),
            *TO_CALLERS,
        ),
        parameters=(*pages.PARAMETERS, pages.FRESH, ACCEPT),
    )
    async def overview(self, request: web.Request) -> web.StreamResponse:
        """List the sites that the caller may see, by id, with the drift of their environments."""
        caller = await self._gate.caller(request)
        asked = pages.Page.asked(request)
        if not pages.fresh(request):
            page = await self._standings.page(caller, asked)
            return answer(page, headers=pages.link(request, page.next))
        fresh = await self._standings.fresh_page(caller, asked)
        link = pages.link(request, fresh.end.next, pages.FRESH)
        form = preferred(request, _FORMS)
        if form == JSON:
            return answer(await fresh.whole(), headers={**link, **_VARY})
        return await self._stream(request, fresh, form, link)

    @Route(
        "GET",
        "/api/v1/sites/{site}",
        "show_site",
        _TAG,
        (
            Answer(HTTPStatus.OK, "The site.", {JSON: SiteView, NDJSON: None, EVENTS: None}),
            *problems(HTTPStatus.BAD_REQUEST),
            *ABOUT_ONE,
        ),
        parameters=(pages.FRESH, ACCEPT),
    )
    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show one site, with the drift of its environments."""
        site_id = request.match_info["site"]
        await self._gate.caller_for(request, site_id)
        if not pages.fresh(request):
            return answer(await self._standings.site(site_id))
        fresh = FreshPage(await self._standings.fresh_site(site_id), SitesPageEnd(next=None))
        form = preferred(request, _FORMS)
        if form == JSON:
            (site,) = (await fresh.whole()).sites
            return answer(site, headers=_VARY)
        return await self._stream(request, fresh, form, {})

    async def _stream(
        self, request: web.Request, fresh: FreshPage, form: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Send each site as it arrives, and at the end what belongs to the page."""
        stream = LogStream(form, {**headers, **_VARY})
        async with contextlib.aclosing(fresh.sites) as coming, stream.sent(request) as response:
            number = 0
            async for site in coming:
                number += 1
                await stream.line(LogLine(number, site.to_json().decode()))
            await stream.end(fresh.end.model_dump(mode="json"))
        return response


class EnvironmentRoutes:
    """Handles what may be asked of one environment."""

    def __init__(
        self,
        gate: Gate,
        directory: Directory,
        standings: Standings,
        intake: Intake,
        calls: Calls,
        bodies: BodyReader,
        log: Log,
    ) -> None:
        self._gate = gate
        self._directory = directory
        self._standings = standings
        self._intake = intake
        self._calls = calls
        self._bodies = bodies
        self._log = log

    @Route(
        "POST",
        f"{_ONE}/sync",
        "sync",
        _TAG,
        (
            answered(DryRunOrRun, "The run has ended; or what it would do.", headers=RUN_HEADERS),
            answered(RunView, "The run goes on.", HTTPStatus.ACCEPTED, headers=RUN_HEADERS),
            *problems(HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY),
            *TO_BODIES,
            *ABOUT_ONE,
        ),
        body=DryRun,
        body_required=False,
        parameters=(PREFER,),
    )
    async def sync(self, request: web.Request) -> web.StreamResponse:
        """Start a run for one environment, or show what it would do."""
        caller, environment = await self._asked(request)
        if (await self._bodies.read_as(request, DryRun, empty_allowed=True)).dry_run:
            who = asker(request, caller).facts
            self._log.info("dry run", site=environment.site, environment=environment.name, **who)
            return answer(await self._standings.look(environment))
        return await self._calls.native(request, environment, asker(request, caller))

    @Route(
        "POST",
        f"{_ONE}/hold",
        "hold",
        _TAG,
        (answered(Held, "It is on hold."), *TO_BODIES, *ABOUT_ONE),
        body=HoldBody,
    )
    async def hold(self, request: web.Request) -> web.Response:
        """Freeze one environment, with a reason."""
        caller, environment = await self._asked(request)
        reason = (await self._bodies.read_as(request, HoldBody)).reason.strip()
        hold = await self._intake.hold(environment, reason, asker(request, caller))
        return answer(Held(hold=HoldView.of(hold)))

    @Route("POST", f"{_ONE}/release", "release", _TAG, (answered(Released, "It is not on hold."), *ABOUT_ONE))
    async def release(self, request: web.Request) -> web.Response:
        """Release one environment; if it follows live, it is synced."""
        caller, environment = await self._asked(request)
        return answer(Released.of(*await self._intake.release(environment, asker(request, caller))))

    async def _asked(self, request: web.Request) -> tuple[Caller, Environment]:
        site_id = request.match_info["site"]
        caller = await self._gate.caller_for(request, site_id)
        return caller, await self._directory.environment(site_id, request.match_info["environment"])
