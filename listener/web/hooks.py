"""Deliveries: HTTP on one side, the intake on the other."""

from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from listener.deliveries import Delivery, Hook
from listener.errors import HookNotFoundError, SignatureRejectedError
from listener.intake import Intake
from listener.queue import Acceptance
from listener.request_context import request_context
from listener.signatures import PATH
from listener.web.answers.deliveries import Accepted, AcceptedOrIgnored, acceptance_of
from listener.web.bodies import BodyReader
from listener.web.protocol import FORM, JSON
from listener.web.replies import answer
from listener.web.routes import ANY_TIME, SIGNATURE, TO_BODIES, Route, answered, problems

_ANSWERS = (
    answered(Accepted, "It is verified and durable; these runs serve it.", HTTPStatus.ACCEPTED),
    answered(AcceptedOrIgnored, "It is verified and selects nothing; or it came before."),
    *problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    *TO_BODIES,
    *ANY_TIME,
)
_BODIES = (JSON, FORM)


class Hooks:
    """Handles deliveries."""

    def __init__(self, intake: Intake, clock: Callable[[], float], bodies: BodyReader) -> None:
        self._intake = intake
        self._clock = clock
        self._bodies = bodies

    @Route("POST", "/hooks/{hook}", "deliver", "Hooks", _ANSWERS, bodies=_BODIES, needs=SIGNATURE)
    @Route(
        "POST",
        "/hooks/{hook}/{secret}",
        "deliver_by_path",
        "Hooks",
        _ANSWERS,
        "The same for the scheme `path`: the secret is part of the path.",
        bodies=_BODIES,
        needs=SIGNATURE,
    )
    async def receive(self, request: web.Request) -> web.Response:
        """Take a webhook's delivery, signed by the hook's scheme, and answer when it is durable."""
        secret = request.match_info.get("secret")
        try:
            hook = self._hook(request.match_info["hook"], request.remote or "", secret)
        except HookNotFoundError as error:
            # Answer as slowly as for a wrong secret: otherwise the time would show which hooks exist.
            error.guess = secret is not None
            raise
        presented = (secret or "").encode("utf-8", "surrogateescape")
        if request_context().over:
            headers = Delivery(hook.name, request.raw_headers, b"", self._clock(), presented)
            self._intake.check_headers(hook, headers)
        body = await self._bodies.read(request, limit=hook.body_limit)
        request_context().body = body
        delivery = Delivery(hook.name, request.raw_headers, body, self._clock(), presented)
        try:
            signed_with = self._intake.verify(hook, delivery)
        except SignatureRejectedError as error:
            if hook.scheme == PATH:  # Without its secret, nobody learns that the hook exists.
                hidden = HookNotFoundError(reason=error.message)
                hidden.guess = error.guess
                raise hidden from error
            raise
        request_context().mark_verified()
        return accepted(await self._intake.receive(hook, delivery, signed_with, request.remote or ""))

    def _hook(self, name: str, client: str, secret: str | None) -> Hook:
        hook = self._intake.hook(name, client)
        if secret is not None and hook.scheme != PATH:
            raise HookNotFoundError(reason=f"the scheme {hook.scheme} has no secret in the path")
        return hook


def accepted(acceptance: Acceptance) -> web.Response:
    """Answer a delivery: with its runs, or with the reason why it has none."""
    known = acceptance.ignored or acceptance.repeated
    return answer(acceptance_of(acceptance), HTTPStatus.OK if known else HTTPStatus.ACCEPTED)
