"""`GET /`: a form to sign in, and for who has, the sites that they may see. It needs no script.

All of it is one document, and its policy lets a browser load nothing else. Whatever comes from elsewhere
(ids, reasons, messages) is escaped.
"""

from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from listener.access import Caller
from listener.errors import BadRequestError, ForbiddenError, UnauthorizedError
from listener.request_context import request_context
from listener.web import bodies, views
from listener.web.cookies import clear_session, of_own_page, session_id, set_session
from listener.web.credentials import Gate, demand_own_page
from listener.web.html import HEADERS, overview, sign_in
from listener.web.protocol import FORM

IN_CLEAR = "Sign in by HTTPS: here the token would travel in clear."

Seen = Callable[[Caller], Awaitable[dict[str, Any]]]


class Page:
    """Handles `/` and `/session`."""

    def __init__(self, gate: Gate, seen_by: Seen, *, clock: Callable[[], float], body_timeout: float) -> None:
        self._gate = gate
        self._seen_by = seen_by
        self._clock = clock
        self._body_timeout = body_timeout

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes; `/session/end` is what a form can do of `DELETE /session`."""
        yield web.get("/", self.show)
        yield web.post("/session", self.begin)
        yield web.delete("/session", self.end)
        yield web.post("/session/end", self.end)

    async def show(self, request: web.Request) -> web.Response:
        """Answer the page."""
        try:
            caller = await self._gate.caller(request)
        except UnauthorizedError:
            if "Authorization" in request.headers or "X-XSRF-TOKEN" in request.headers:
                raise  # No browser that is led here sends these: somebody tries a credential.
            return _html(sign_in(IN_CLEAR if _in_clear(request) else ""))
        return _html(overview(caller, await self._seen_by(caller)))

    async def begin(self, request: web.Request) -> web.Response:
        """Begin a session for a token: from the page's form, or for a JSON object."""
        if of_own_page(request) is False:
            raise ForbiddenError("Sign in on the listener's own page.")
        by_form = request.content_type == FORM
        if _in_clear(request):
            if not by_form:
                raise ForbiddenError(IN_CLEAR)
            return _html(sign_in(IN_CLEAR), status=403)
        presented = _field(await self._form(request)) if by_form else await self._json(request)
        try:
            made, session, caller = await self._gate.sign_in(request, presented)
        except UnauthorizedError as error:
            if not by_form:
                raise
            request_context().refused = error
            headers = {"WWW-Authenticate": UnauthorizedError.challenge}
            return _html(sign_in("That is no token, or one that has expired."), status=401, headers=headers)
        response = _see_page() if by_form else web.json_response(_told(caller, session.expires), status=201)
        set_session(request, response, made, session.expires - self._clock())
        return response

    async def end(self, request: web.Request) -> web.Response:
        """End the request's session, at the listener and in the browser."""
        begun = session_id(request) is not None
        # Another site's page sends no cookie, and could still have it taken from the browser.
        if begun or of_own_page(request) is False:
            demand_own_page(request)
        if begun:
            await self._gate.sign_out(request)
        response = web.Response(status=204) if request.method == "DELETE" else _see_page()
        clear_session(request, response)
        return response

    async def _form(self, request: web.Request) -> str:
        body = await bodies.read(request, limit=bodies.API_LIMIT, seconds=self._body_timeout)
        return body.decode("utf-8", "replace")

    async def _json(self, request: web.Request) -> str:
        body = await bodies.read_object(request, seconds=self._body_timeout)
        bodies.only(body, "token")
        token = body.get("token")
        if not isinstance(token, str):
            raise BadRequestError("token is the text of a token.")
        return token


def _in_clear(request: web.Request) -> bool:
    """Return whether what a browser sends could be read on its way from another machine."""
    if request.secure:
        return False
    try:
        return not ip_address(request.remote or "").is_loopback
    except ValueError:
        return True


def _field(form: str) -> str:
    """Return the form's one field; raise `BadRequestError` for any other form."""
    try:
        fields = parse_qs(form, keep_blank_values=True, max_num_fields=1)
    except ValueError as error:
        raise BadRequestError from error
    if fields.keys() != {"token"}:
        raise BadRequestError("The form has one field, token.")
    return fields["token"][0]


def _told(caller: Caller, expires: float) -> dict[str, Any]:
    return {
        "name": caller.name,
        "role": caller.role.value,
        "sites": sorted(caller.sites),
        "expires": views.moment(expires),
    }


def _see_page() -> web.Response:
    return web.Response(status=303, headers={"Location": "/"})


def _html(text: str, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={**HEADERS, **(headers or {})},
    )
