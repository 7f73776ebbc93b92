"""The probes: does the listener run, and does it take requests."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Literal

from aiohttp import web

from listener import __version__
from listener.web.answers.view import View
from listener.web.replies import answer
from listener.web.routes import NOTHING, Route, answered, problems

FEWER = problems(HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR)
"""What a route that does not use the store may answer at any time."""


class Alive(View):
    """The listener runs."""

    status: Literal["ok"]
    version: str


class Ready(View):
    """Requests are taken."""

    status: Literal["ready"]


class Unready(View):
    """Requests are not taken now."""

    status: Literal["unavailable"]
    reason: str


class Probes:
    """Handles `/healthz` and `/readyz`."""

    def __init__(self, ready: Callable[[], Awaitable[str]]) -> None:
        """`ready` returns why the listener can't take requests now; empty if it can."""
        self._ready = ready

    @Route("GET", "/healthz", "alive", "Probes", (answered(Alive, "It runs."), *FEWER), needs=NOTHING)
    async def alive(self, _request: web.Request) -> web.Response:
        """Tell whether the listener runs."""
        return answer(Alive(status="ok", version=__version__))

    @Route(
        "GET",
        "/readyz",
        "ready",
        "Probes",
        (
            answered(Ready, "It takes requests."),
            answered(Unready, "It does not, and why.", HTTPStatus.SERVICE_UNAVAILABLE),
            *FEWER,
        ),
        needs=NOTHING,
    )
    async def ready(self, _request: web.Request) -> web.Response:
        """Tell whether the listener takes requests."""
        reason = await self._ready()
        if reason:
            return answer(Unready(status="unavailable", reason=reason), HTTPStatus.SERVICE_UNAVAILABLE)
        return answer(Ready(status="ready"))
