"""Sites and their environments: how they stand, and what may be asked of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiohttp import web

from listener.access import Caller
from listener.directory import Directory
from listener.errors import InvalidParametersError
from listener.intake import Intake
from listener.journal import Log, Remarks
from listener.queue import Hold, RunStore
from listener.sites import Environment, Site
from listener.sync import Synchronizer
from listener.web import bodies, views
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker

REASON_MOST = 500
"""Characters of a hold's reason."""


class SiteRoutes:
    """Handles `/api/v1/sites`."""

    def __init__(
        self,
        gate: Gate,
        directory: Directory,
        store: RunStore,
        synchronizer: Synchronizer,
        intake: Intake,
        calls: Calls,
        *,
        clock: Callable[[], float],
        log: Log,
        body_timeout: float,
    ) -> None:
        self._gate = gate
        self._directory = directory
        self._store = store
        self._synchronizer = synchronizer
        self._intake = intake
        self._calls = calls
        self._clock = clock
        self._log = log
        self._body_timeout = body_timeout

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes."""
        one = "/api/v1/sites/{site}/environments/{environment}"
        yield web.get("/api/v1/sites", self.overview)
        yield web.get("/api/v1/sites/{site}", self.show)
        yield web.post(f"{one}/sync", self.sync)
        yield web.post(f"{one}/hold", self.hold)
        yield web.post(f"{one}/release", self.release)

    async def overview(self, request: web.Request) -> web.Response:
        """Answer every site that the caller may see, with the drift of its environments."""
        return web.json_response(await self.seen_by(await self._gate.caller(request)))

    async def seen_by(self, caller: Caller) -> dict[str, Any]:
        """Return every site that a caller may see, and for an admin what could not be listed."""
        sites, unlisted = await self._directory.all()
        visible = [site for site in sites if caller.covers(site.id)]
        view: dict[str, Any] = {"sites": await self._stand(visible)}
        if unlisted and caller.admin:
            view["unlisted"] = [views.unlisted(each) for each in unlisted]
        return view

    async def show(self, request: web.Request) -> web.Response:
        """Answer one site."""
        await self._gate.caller_for(request, request.match_info["site"])
        (stand,) = await self._stand([await self._directory.site(request.match_info["site"])])
        return web.json_response(stand)

    async def sync(self, request: web.Request) -> web.StreamResponse:
        """Start a run for one environment, or answer what one would do."""
        caller, environment = await self._asked(request)
        if await bodies.dry_run(request, seconds=self._body_timeout):
            self._log_asked(request, caller, "dry run", environment)
            return web.json_response(await self._look(environment))
        return await self._calls.native(request, environment, asker(request, caller))

    async def hold(self, request: web.Request) -> web.Response:
        """Freeze one environment, with a reason."""
        caller, environment = await self._asked(request)
        body = await bodies.read_object(request, seconds=self._body_timeout)
        bodies.only(body, "reason")
        reason = body.get("reason")
        if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_MOST:
            raise InvalidParametersError("reason")
        hold = Hold(environment.site, environment.name, reason.strip(), caller.name, self._clock())
        await self._store.hold(hold)
        self._log_asked(request, caller, "hold", environment, reason=hold.reason)
        return web.json_response({"hold": views.hold(hold)})

    async def release(self, request: web.Request) -> web.Response:
        """Let one environment go. One that follows live catches up with what it missed."""
        caller, environment = await self._asked(request)
        released, run = await self._intake.release(environment, asker(request, caller))
        runs = [] if run is None else [run.id]
        return web.json_response({"released": views.hold(released), "runs": runs})

    def _log_asked(
        self, request: web.Request, caller: Caller, event: str, environment: Environment, **facts: str
    ) -> None:
        who = asker(request, caller).facts
        self._log.info(event, site=environment.site, environment=environment.name, **facts, **who)

    async def _asked(self, request: web.Request) -> tuple[Caller, Environment]:
        site_id = request.match_info["site"]
        caller = await self._gate.caller_for(request, site_id)
        return caller, await self._directory.environment(site_id, request.match_info["environment"])

    async def _stand(self, sites: Sequence[Site]) -> list[dict[str, Any]]:
        """Return how sites stand: one look at every environment, their holds, their last successes."""
        environments = [each for site in sites for each in site.environments.values()]
        looks = await self._synchronizer.survey(environments, Remarks(self._log))
        holds = {(hold.site, hold.environment): hold for hold in await self._store.holds()}
        stands: dict[str, list[dict[str, Any]]] = {site.id: [] for site in sites}
        for environment, look in zip(environments, looks, strict=True):
            last = await self._store.last_success(environment.site, environment.name)
            stands[environment.site].append(
                {
                    **views.environment(environment),
                    "hold": views.hold(holds.get((environment.site, environment.name))),
                    "last_success": None
                    if last is None
                    else {"run": last.id, "at": views.moment(last.finished_at)},
                    "drift": views.looks(look),
                }
            )
        return [{"site": site.id, "live": site.live, "environments": stands[site.id]} for site in sites]

    async def _look(self, environment: Environment) -> dict[str, Any]:
        remarks = Remarks(
            self._log, site=environment.site, environment=environment.name, host=",".join(environment.hosts)
        )
        found = await self._synchronizer.look(environment, remarks)
        if len(found) == 1 and found[0].error is not None:
            raise found[0].error
        return views.looks(found)
