"""Deliveries: the shell around the intake."""

import re
from collections.abc import Callable, Iterator

from aiohttp import web

from listener.deliveries import Delivery
from listener.errors import HookNotFoundError, SignatureRejectedError
from listener.intake import Intake
from listener.journal import REDACTED
from listener.queue import Acceptance
from listener.signatures import PATH
from listener.web import bodies
from listener.web.edge.refusals import OVER

_BEHIND_A_HOOK = re.compile(r"(/hooks(?:/|%2F)+[^/%]*(?:/|%)).+", re.DOTALL | re.IGNORECASE)


class Hooks:
    """Handles `POST /hooks/{hook}`, and `POST /hooks/{hook}/{secret}` for the scheme `path`."""

    def __init__(self, intake: Intake, clock: Callable[[], float], *, body_timeout: float) -> None:
        self._intake = intake
        self._clock = clock
        self._body_timeout = body_timeout

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes."""
        yield web.post("/hooks/{hook}", self.receive)
        yield web.post("/hooks/{hook}/{secret}", self.receive)

    async def receive(self, request: web.Request) -> web.Response:
        """Take one delivery in, and answer once it is durable."""
        hook = self._intake.hook(request.match_info["hook"], request.remote or "")
        secret = request.match_info.get("secret")
        if secret is not None and hook.scheme != PATH:
            raise HookNotFoundError
        presented = (secret or "").encode("utf-8", "surrogateescape")
        if request[OVER]:
            self._intake.doubt(hook, Delivery(hook.name, request.raw_headers, b"", self._clock(), presented))
        body = await bodies.read(request, limit=hook.body_limit, seconds=self._body_timeout)
        delivery = Delivery(hook.name, request.raw_headers, body, self._clock(), presented)
        try:
            return _answer(await self._intake.receive(hook, delivery, quiet=request[OVER]))
        except SignatureRejectedError as error:
            if hook.scheme == PATH:  # it is hidden from who does not know its secret
                raise HookNotFoundError from error
            raise


def shown_path(path: str) -> str:
    """Return a path as the log may show it: behind a hook's name stands a secret, or nearly one."""
    return _BEHIND_A_HOOK.sub(rf"\g<1>{REDACTED}", path)


def _answer(acceptance: Acceptance) -> web.Response:
    if acceptance.ignored:
        return web.json_response({"delivery": acceptance.delivery, "ignored": acceptance.ignored})
    return web.json_response(
        {"delivery": acceptance.delivery, "runs": list(acceptance.runs)},
        status=200 if acceptance.repeated else 202,
    )
