"""Deliveries: the shell around the intake."""

from collections.abc import Callable, Iterator

from aiohttp import web

from listener.deliveries import Delivery
from listener.intake import Intake
from listener.queue import Acceptance
from listener.web import bodies


class Hooks:
    """Handles `POST /hooks/{hook}`."""

    def __init__(self, intake: Intake, clock: Callable[[], float], *, body_timeout: float) -> None:
        self._intake = intake
        self._clock = clock
        self._body_timeout = body_timeout

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the one route."""
        yield web.post("/hooks/{hook}", self.receive)

    async def receive(self, request: web.Request) -> web.Response:
        """Take one delivery in, and answer once it is durable."""
        hook = self._intake.hook(request.match_info["hook"])
        body = await bodies.read(request, limit=hook.body_limit, seconds=self._body_timeout)
        delivery = Delivery(hook.name, request.raw_headers, body, self._clock())
        return _answer(await self._intake.receive(hook, delivery))


def _answer(acceptance: Acceptance) -> web.Response:
    if acceptance.ignored:
        return web.json_response({"delivery": acceptance.delivery, "ignored": acceptance.ignored})
    return web.json_response(
        {"delivery": acceptance.delivery, "runs": list(acceptance.runs)},
        status=200 if acceptance.repeated else 202,
    )
