"""Deliveries: the shell around the intake."""

from collections.abc import Callable, Iterator

from aiohttp import web

from listener.deliveries import Delivery, Hook
from listener.errors import HookNotFoundError, SignatureRejectedError
from listener.intake import Intake
from listener.queue import Acceptance
from listener.request_context import request_context
from listener.signatures import PATH
from listener.web import bodies


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
        secret = request.match_info.get("secret")
        try:
            hook = self._hook(request.match_info["hook"], request.remote or "", secret)
        except HookNotFoundError as error:
            # As slow as a wrong secret of a hook that there is: else the time would tell which there are.
            error.guess = secret is not None
            raise
        presented = (secret or "").encode("utf-8", "surrogateescape")
        if request_context().over:
            self._intake.doubt(hook, Delivery(hook.name, request.raw_headers, b"", self._clock(), presented))
        body = await bodies.read(request, limit=hook.body_limit, seconds=self._body_timeout)
        request_context().body = body
        delivery = Delivery(hook.name, request.raw_headers, body, self._clock(), presented)
        try:
            signed_with = self._intake.verify(hook, delivery)
        except SignatureRejectedError as error:
            if hook.scheme == PATH:  # it is hidden from who does not know its secret
                hidden = HookNotFoundError(reason=error.message)
                hidden.guess = error.guess
                raise hidden from error
            raise
        request_context().vouch()
        return answer(await self._intake.receive(hook, delivery, signed_with, request.remote or ""))

    def _hook(self, name: str, client: str, secret: str | None) -> Hook:
        hook = self._intake.hook(name, client)
        if secret is not None and hook.scheme != PATH:
            raise HookNotFoundError(reason=f"the scheme {hook.scheme} has no secret in the path")
        return hook


def answer(acceptance: Acceptance) -> web.Response:
    """Answer a delivery: with its runs, or why there are none."""
    if acceptance.ignored:
        return web.json_response({"delivery": acceptance.delivery, "ignored": acceptance.ignored})
    return web.json_response(
        {"delivery": acceptance.delivery, "runs": list(acceptance.runs)},
        status=200 if acceptance.repeated else 202,
    )
