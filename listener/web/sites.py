"""Sites and their environments: how they stand, and what may be asked of them."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from listener.access import Token
from listener.errors import BadRequestError, InvalidParametersError, SyncError
from listener.journal import Log, Remarks
from listener.runs import Hold, Origin, RunStore
from listener.sites import Environment, Site, Sites
from listener.sync import Synchronizer
from listener.web import bodies, views
from listener.web.calls import Calls
from listener.web.credentials import Gate

REASON_MOST = 500
"""Characters of a hold's reason."""


class SiteRoutes:
    """Handles `/api/v1/sites`."""

    def __init__(
        self,
        gate: Gate,
        sites: Sites,
        store: RunStore,
        synchronizer: Synchronizer,
        calls: Calls,
        *,
        clock: Callable[[], float],
        log: Log,
        body_timeout: float,
    ) -> None:
        self._gate = gate
        self._sites = sites
        self._store = store
        self._synchronizer = synchronizer
        self._calls = calls
        self._clock = clock
        self._log = log
        self._body_timeout = body_timeout

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes."""
        one = "/api/v1/sites/{site}/environments/{environment}"
        yield web.get("/api/v1/sites", self.list)
        yield web.get("/api/v1/sites/{site}", self.show)
        yield web.post(f"{one}/sync", self.sync)
        yield web.post(f"{one}/hold", self.hold)
        yield web.post(f"{one}/release", self.release)

    async def list(self, request: web.Request) -> web.Response:
        """Answer every site that the caller may see, with the drift of its environments."""
        caller = self._gate.caller(request)
        visible = [site for site in self._sites if caller.covers(site.id)]
        return web.json_response({"sites": await asyncio.gather(*map(self._stand, visible))})

    async def show(self, request: web.Request) -> web.Response:
        """Answer one site."""
        self._gate.caller_for(request, request.match_info["site"])
        return web.json_response(await self._stand(self._sites.site(request.match_info["site"])))

    async def sync(self, request: web.Request) -> web.StreamResponse:
        """Start a run for one environment, or answer what one would do."""
        caller, environment = self._asked(request)
        body = await bodies.read_object(request, seconds=self._body_timeout, empty_allowed=True)
        _only(body, "dry_run")
        dry_run = body.get("dry_run", False)
        if not isinstance(dry_run, bool):
            raise InvalidParametersError("dry_run")
        if dry_run:
            return web.json_response(await self._look(environment))
        return await self._calls.native(request, environment, caller)

    async def hold(self, request: web.Request) -> web.Response:
        """Freeze one environment, with a reason."""
        caller, environment = self._asked(request)
        body = await bodies.read_object(request, seconds=self._body_timeout)
        _only(body, "reason")
        reason = body.get("reason")
        if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_MOST:
            raise InvalidParametersError("reason")
        hold = Hold(environment.site, environment.name, reason.strip(), caller.name, self._clock())
        await self._store.hold(hold)
        self._log.log(
            20, "hold", site=hold.site, environment=hold.environment, actor=hold.actor, reason=reason
        )
        return web.json_response({"hold": views.hold(hold)})

    async def release(self, request: web.Request) -> web.Response:
        """Let one environment go. One that follows live catches up with what it missed."""
        caller, environment = self._asked(request)
        released = await self._store.release(environment.site, environment.name)
        runs: tuple[str, ...] = ()
        if released is not None:
            self._log.log(
                20, "release", site=environment.site, environment=environment.name, actor=caller.name
            )
            if environment.follow:
                runs = (await self._calls.request(environment, caller, Origin.RELEASE)).runs
        return web.json_response({"released": views.hold(released), "runs": list(runs)})

    def _asked(self, request: web.Request) -> tuple[Token, Environment]:
        site_id = request.match_info["site"]
        caller = self._gate.caller_for(request, site_id)
        return caller, self._sites.environment(site_id, request.match_info["environment"])

    async def _stand(self, site: Site) -> dict[str, Any]:
        holds = {hold.environment: hold for hold in await self._store.holds() if hold.site == site.id}

        async def stand(environment: Environment) -> dict[str, Any]:
            last = await self._store.last_success(site.id, environment.name)
            return {
                **views.environment(environment),
                "hold": views.hold(holds.get(environment.name)),
                "last_success": None
                if last is None
                else {"run": last.id, "at": views.moment(last.finished_at)},
                "drift": await self._drift(environment),
            }

        environments = await asyncio.gather(*map(stand, site.environments.values()))
        return {"site": site.id, "live": site.live, "environments": environments}

    async def _drift(self, environment: Environment) -> dict[str, Any]:
        """Return how an environment differs from live now, or why that can't be told."""
        try:
            return await self._look(environment)
        except SyncError as error:
            return {"error": error.code, "message": error.message, "remedy": error.remedy}

    async def _look(self, environment: Environment) -> dict[str, Any]:
        remarks = Remarks(
            self._log, site=environment.site, environment=environment.name, host=environment.repository.host
        )
        return views.plan(*await self._synchronizer.look(environment, remarks))


def _only(body: dict[str, Any], *known: str) -> None:
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise BadRequestError(f"Unknown field(s): {', '.join(unknown)[:200]}. Known: {', '.join(known)}.")
