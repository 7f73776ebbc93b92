"""Sites and their environments: how they stand, and what may be asked of them."""

from http import HTTPStatus

from aiohttp import web
from pydantic import Field

from listener.access import Caller
from listener.directory import Directory
from listener.intake import Intake
from listener.journal import Log
from listener.sites import Environment
from listener.web import pages
from listener.web.answers.runs import RunView
from listener.web.answers.sites import DryRunOrRun, Held, HoldView, Released, SitesPage, SiteView
from listener.web.answers.view import Body
from listener.web.bodies import BodyReader
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker
from listener.web.replies import answer
from listener.web.routes import (
    ABOUT_ONE,
    PREFER,
    RUN_HEADERS,
    TO_BODIES,
    TO_CALLERS,
    Route,
    answered,
    problems,
)
from listener.web.standings import Standings

_TAG = "Sites"
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
            answered(SitesPage, "The page.", headers=("Link",)),
            *problems(HTTPStatus.BAD_REQUEST),
            *TO_CALLERS,
        ),
        parameters=pages.PARAMETERS,
    )
    async def overview(self, request: web.Request) -> web.Response:
        """List the sites that the caller may see, by id, with the drift of their environments."""
        caller = await self._gate.caller(request)
        page = await self._standings.page(caller, pages.Page.asked(request))
        return answer(page, headers=pages.link(request, page.next))

    @Route("GET", "/api/v1/sites/{site}", "show_site", _TAG, (answered(SiteView, "The site."), *ABOUT_ONE))
    async def show(self, request: web.Request) -> web.Response:
        """Show one site, with the drift of its environments."""
        await self._gate.caller_for(request, request.match_info["site"])
        return answer(await self._standings.site(request.match_info["site"]))


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
