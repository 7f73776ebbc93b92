"""`GET /`: a form to sign in; after that, the sites that the caller may see. The page has no script.

The page is one document, and its policy lets a browser load nothing else. All text from elsewhere (ids,
reasons, messages) is escaped.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from ipaddress import ip_address
from typing import Self
from urllib.parse import parse_qs

from aiohttp import web

from listener.access import Caller, Role
from listener.errors import BadRequestError, ForbiddenError, InvalidParametersError, UnauthorizedError
from listener.request_context import request_context
from listener.web import pages
from listener.web.answers.sites import SitesPage
from listener.web.answers.view import Body, Moment, Texts, View
from listener.web.bodies import BodyReader
from listener.web.cookies import clear_session, of_own_page, session_id, set_session
from listener.web.credentials import Gate, require_own_page
from listener.web.html import HEADERS, overview, sign_in
from listener.web.protocol import FORM, HTML
from listener.web.replies import answer
from listener.web.routes import ANY_TIME, NOTHING, TO_BODIES, TO_CALLERS, Answer, Route, answered, problems

IN_CLEAR = "Sign in by HTTPS: by HTTP, others could read the token on its way."

Seen = Callable[[Caller, pages.Page, bool], Awaitable[SitesPage]]
"""Returns a page of the sites that a caller may see; with True, after fresh looks."""


class SignIn(Body):
    """The text of a token."""

    token: str


class SignedIn(View):
    """Who is signed in, and for how long."""

    name: str
    role: Role
    sites: Texts
    expires: Moment

    @classmethod
    def of(cls, caller: Caller, expires: float) -> Self:
        """Return a caller whose session ends then."""
        return cls.of_object(caller, sites=tuple(sorted(caller.sites)), expires=expires)


_FORM_AGAIN = tuple(
    replace(answer, content={**answer.content, HTML: None})
    for answer in problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
)
"""The answers to a form are pages."""
_SEE_PAGE = Answer(HTTPStatus.SEE_OTHER, "See the page: the answer to a form.", {}, ("Location",))
_LEFT = (*problems(HTTPStatus.FORBIDDEN), *ANY_TIME)


class PageRoutes:
    """Handles `/` and `/session`."""

    def __init__(self, gate: Gate, seen_by: Seen, clock: Callable[[], float], bodies: BodyReader) -> None:
        self._gate = gate
        self._seen_by = seen_by
        self._clock = clock
        self._bodies = bodies

    @Route(
        "GET",
        "/",
        "show_page",
        "Page",
        (
            Answer(HTTPStatus.OK, "The page.", {HTML: None}),
            *problems(HTTPStatus.BAD_REQUEST),
            *TO_CALLERS,
        ),
        parameters=(*pages.PARAMETERS, pages.FRESH),
        needs=NOTHING,
    )
    async def show(self, request: web.Request) -> web.Response:
        """Show the sites of a caller who is signed in, or a form to sign in."""
        page, fresh = pages.Page.asked(request), pages.fresh(request)
        try:
            caller = await self._gate.caller(request)
        except UnauthorizedError:
            if "Authorization" in request.headers or "X-XSRF-TOKEN" in request.headers:
                raise  # A link or form can't make a browser send these: somebody tries a credential.
            return _html(sign_in(IN_CLEAR if _in_clear(request) else ""))
        return _html(overview(caller, await self._seen_by(caller, page, fresh), page))

    @Route(
        "POST",
        "/session",
        "sign_in",
        "Page",
        (
            answered(SignedIn, "The session has begun.", HTTPStatus.CREATED, headers=("Set-Cookie",)),
            _SEE_PAGE,
            *TO_BODIES,
            *ANY_TIME,
            *_FORM_AGAIN,
        ),
        body=SignIn,
        form=True,
        needs=NOTHING,
    )
    async def begin(self, request: web.Request) -> web.Response:
        """Begin a session for a token: a cookie that counts instead of it."""
        if of_own_page(request) is False:
            raise ForbiddenError("Sign in on the listener's own page.")
        by_form = request.content_type == FORM
        if _in_clear(request):
            if not by_form:
                raise ForbiddenError(IN_CLEAR)
            return _html(sign_in(IN_CLEAR), status=403)
        presented = await (self._form(request) if by_form else self._json(request))
        try:
            made, session, caller = await self._gate.sign_in(request, presented)
        except UnauthorizedError as error:
            if not by_form:
                raise
            request_context().refused = error
            headers = {"WWW-Authenticate": UnauthorizedError.challenge}
            return _html(sign_in("This token is unknown, or has expired."), status=401, headers=headers)
        response = _see_page() if by_form else answer(SignedIn.of(caller, session.expires), 201)
        set_session(request, response, made, session.expires - self._clock())
        return response

    @Route(
        "DELETE",
        "/session",
        "sign_out",
        "Page",
        (Answer(HTTPStatus.NO_CONTENT, "There is no session any more.", {}), *_LEFT),
        needs=NOTHING,
    )
    @Route(
        "POST",
        "/session/end",
        "leave_page",
        "Page",
        (_SEE_PAGE, *_LEFT),
        "The same for a form, which can't send DELETE.",
        needs=NOTHING,
    )
    async def end(self, request: web.Request) -> web.Response:
        """End the session, at the listener and in the browser."""
        begun = session_id(request) is not None
        # A page of another site sends no cookie, but could still make the browser lose it.
        if begun or of_own_page(request) is False:
            require_own_page(request)
        if begun:
            await self._gate.sign_out(request)
        response = web.Response(status=204) if request.method == "DELETE" else _see_page()
        clear_session(request, response)
        return response

    async def _form(self, request: web.Request) -> str:
        return _field((await self._bodies.read(request)).decode("utf-8", "replace"))

    async def _json(self, request: web.Request) -> str:
        try:
            return (await self._bodies.read_as(request, SignIn)).token
        except InvalidParametersError:
            raise BadRequestError("token must be the text of a token.") from None


def _in_clear(request: web.Request) -> bool:
    """Return whether others could read the request on its way: it came from another machine without TLS."""
    if request.secure:
        return False
    try:
        return not ip_address(request.remote or "").is_loopback
    except ValueError:
        return True


def _field(form: str) -> str:
    """Return the form's only field, `token`; raise `BadRequestError` for any other form."""
    try:
        fields = parse_qs(form, keep_blank_values=True, max_num_fields=1)
    except ValueError as error:
        raise BadRequestError from error
    if fields.keys() != {"token"}:
        raise BadRequestError("The form must have one field, token.")
    return fields["token"][0]


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
