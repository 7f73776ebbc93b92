"""Deliveries and refused requests: what became of them, and selecting them again."""

from http import HTTPStatus

from aiohttp import web

from listener.audit import Audit
from listener.errors import BadRequestError
from listener.intake import Intake
from listener.records import ArrivalFilter, Fate, Records
from listener.web import pages
from listener.web.answers.deliveries import Accepted, AcceptedOrIgnored, ArrivalView, DeliveriesPage
from listener.web.credentials import Gate, asker
from listener.web.hooks import accepted
from listener.web.replies import answer
from listener.web.routes import ABOUT_ONE, ADMIN, TO_CALLERS, Parameter, Route, answered, problems

_TAG = "Deliveries"
_ADMINS = problems(HTTPStatus.FORBIDDEN)
_FILTERS = (
    Parameter("hook", "query", "only what came to this hook", {"type": "string"}),
    Parameter(
        "outcome", "query", "only what ended so", {"type": "string", "enum": [fate.value for fate in Fate]}
    ),
)


class DeliveryRoutes:
    """Handles `/api/v1/deliveries`."""

    def __init__(self, gate: Gate, intake: Intake, audit: Audit, records: Records) -> None:
        self._gate = gate
        self._intake = intake
        self._audit = audit
        self._records = records

    @Route(
        "GET",
        "/api/v1/deliveries",
        "list_deliveries",
        _TAG,
        (
            answered(DeliveriesPage, "The page.", headers=("Link",)),
            *problems(HTTPStatus.BAD_REQUEST),
            *_ADMINS,
            *TO_CALLERS,
        ),
        parameters=(*_FILTERS, *pages.PARAMETERS, pages.BEFORE),
        needs=ADMIN,
    )
    async def history(self, request: web.Request) -> web.Response:
        """List what arrived, refused requests too, newest first."""
        await self._gate.admin(request)
        page = pages.Page.asked(request)
        which = _filter(request, page)
        await self._audit.flush()
        found, more = page.cut(await self._records.arrivals(which))
        view = DeliveriesPage.of(found, more=more)
        return answer(view, headers=pages.link(request, view.next, *_FILTERS))

    @Route(
        "GET",
        "/api/v1/deliveries/{delivery}",
        "show_delivery",
        _TAG,
        (answered(ArrivalView, "What arrived."), *_ADMINS, *ABOUT_ONE),
        needs=ADMIN,
    )
    async def show(self, request: web.Request) -> web.Response:
        """Show one delivery or refused request, and why it was ignored or refused."""
        await self._gate.admin(request)
        await self._audit.flush()
        return answer(ArrivalView.of(await self._records.arrival(request.match_info["delivery"])))

    @Route(
        "POST",
        "/api/v1/deliveries/{delivery}/redeliver",
        "redeliver",
        _TAG,
        (
            answered(Accepted, "These runs serve it.", HTTPStatus.ACCEPTED),
            answered(AcceptedOrIgnored, "It selects nothing, and why."),
            *problems(HTTPStatus.CONFLICT),
            *_ADMINS,
            *ABOUT_ONE,
        ),
        needs=ADMIN,
    )
    async def redeliver(self, request: web.Request) -> web.Response:
        """Select again, by today's configuration, what a delivery asked for."""
        caller = await self._gate.admin(request)
        arrival = await self._records.arrival(request.match_info["delivery"])
        return accepted(await self._intake.redeliver(arrival, asker(request, caller)))


def _filter(request: web.Request, page: pages.Page) -> ArrivalFilter:
    query = request.query
    try:
        fate = Fate(query["outcome"]) if "outcome" in query else None
    except ValueError as error:
        raise BadRequestError(f"outcome must be one of {', '.join(Fate)}.") from error
    return ArrivalFilter(query.get("hook"), fate, page.after or None, page.limit + 1)
