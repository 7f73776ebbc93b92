"""The two calls that Studio documents and no longer has, answered to the letter."""

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from listener.access import Caller
from listener.directory import Directory
from listener.errors import EnvironmentNotFoundError, InvalidParametersError, UnauthorizedError
from listener.sites import Environment, Site
from listener.web import bodies
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker, uncovered

SERVICES = "/api/1/services/"
PREFIXES = (SERVICES, f"/studio{SERVICES}")
PUBLISH = "api/1/publish/"

RESET_ENVIRONMENT = "staging"
"""The environment of the `reset-staging` call, where a site has several."""


class Crafter:
    """Handles `sync-staging` and `reset-staging`."""

    def __init__(self, gate: Gate, directory: Directory, calls: Calls, *, body_timeout: float) -> None:
        self._gate = gate
        self._directory = directory
        self._calls = calls
        self._body_timeout = body_timeout

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield both calls, under both prefixes, with and without the extension."""
        for prefix in PREFIXES:
            for extension in ("", ".json"):
                yield web.post(f"{prefix}{PUBLISH}sync-staging{extension}", self.sync_staging)
                yield web.post(f"{prefix}{PUBLISH}reset-staging{extension}", self.reset_staging)

    async def sync_staging(self, request: web.Request) -> web.StreamResponse:
        """Make the named environment of the named site equal to live."""
        caller, (site_id, name) = await self._asked(request, "site_id", "environment")
        environment = (await self._site(caller, site_id)).environment(name)
        return await self._calls.crafter(request, environment, asker(request, caller))

    async def reset_staging(self, request: web.Request) -> web.StreamResponse:
        """Make the environment `staging` (or the only one) of the named site equal to live."""
        caller, (site_id,) = await self._asked(request, "site_id")
        environment = _staging(await self._site(caller, site_id))
        return await self._calls.crafter(request, environment, asker(request, caller))

    async def _asked(self, request: web.Request, *names: str) -> tuple[Caller, tuple[str, ...]]:
        """Return the caller and the parameters: the credential is checked before the body is read."""
        caller = await self._gate.caller(request)
        body = await bodies.read_object(request, seconds=self._body_timeout)
        return caller, _parameters(body, *names)

    async def _site(self, caller: Caller, site_id: str) -> Site:
        """Return the site; a caller whom it does not concern learns not even whether it exists."""
        if not caller.covers(site_id):
            raise UnauthorizedError(uncovered(caller, site_id))
        return await self._directory.site(site_id)


def _parameters(body: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Return the named parameters, or raise `InvalidParametersError` with all that are not usable."""
    wrong = [name for name in names if not isinstance(body.get(name), str) or not body[name]]
    if wrong:
        raise InvalidParametersError(*wrong)
    return tuple(body[name] for name in names)


def _staging(site: Site) -> Environment:
    if RESET_ENVIRONMENT in site.environments:
        return site.environments[RESET_ENVIRONMENT]
    if len(site.environments) != 1:
        raise EnvironmentNotFoundError
    return next(iter(site.environments.values()))
