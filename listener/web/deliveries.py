"""What arrived, what became of it, and letting it count once more."""

from collections.abc import Iterator

from aiohttp import web

from listener.audit import Audit
from listener.errors import BadRequestError
from listener.intake import Intake
from listener.records import ArrivalFilter, Fate, Records
from listener.web import pages, views
from listener.web.credentials import Gate, asker
from listener.web.hooks import answer


class DeliveryRoutes:
    """Handles `/api/v1/deliveries`."""

    def __init__(self, gate: Gate, intake: Intake, audit: Audit, records: Records) -> None:
        self._gate = gate
        self._intake = intake
        self._audit = audit
        self._records = records

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes."""
        yield web.get("/api/v1/deliveries", self.history)
        yield web.get("/api/v1/deliveries/{delivery}", self.show)
        yield web.post("/api/v1/deliveries/{delivery}/redeliver", self.redeliver)

    async def history(self, request: web.Request) -> web.Response:
        """Answer a page of what arrived, newest first, and where the next one starts."""
        await self._gate.admin(request)
        which = _filter(request)
        await self._audit.flush()
        found = await self._records.arrivals(which)
        following = pages.following(found, which.limit)
        return web.json_response({"deliveries": list(map(views.arrival, found)), "before": following})

    async def show(self, request: web.Request) -> web.Response:
        """Answer one delivery, or one refused request."""
        await self._gate.admin(request)
        await self._audit.flush()
        return web.json_response(views.arrival(await self._records.arrival(request.match_info["delivery"])))

    async def redeliver(self, request: web.Request) -> web.Response:
        """Select again what a delivery asked for, and start it."""
        caller = await self._gate.admin(request)
        arrival = await self._records.arrival(request.match_info["delivery"])
        return answer(await self._intake.redeliver(arrival, asker(request, caller)))


def _filter(request: web.Request) -> ArrivalFilter:
    query = request.query
    try:
        fate = Fate(query["outcome"]) if "outcome" in query else None
    except ValueError as error:
        raise BadRequestError(f"outcome is one of {', '.join(Fate)}") from error
    return ArrivalFilter(query.get("hook"), fate, query.get("before"), pages.limit(request))
