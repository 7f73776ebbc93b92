"""The page, and the sessions by which a browser is signed in."""

from dataclasses import replace
from http import HTTPStatus

from listener.access import Role
from listener.web.openapi.operations import ANY_TIME, Answer, Operation, answered, problems
from listener.web.openapi.schemas import Body, Moment, View
from listener.web.protocol import HTML


class SignIn(Body):
    """The text of a token."""

    token: str


class SignedIn(View):
    """Who is signed in, and for how long."""

    name: str
    role: Role
    sites: list[str]
    expires: Moment


_FORM_AGAIN = tuple(
    replace(answer, content={**answer.content, HTML: None})
    for answer in problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
)
"""To a form, the page is the answer."""
_SEE_PAGE = Answer(HTTPStatus.SEE_OTHER, "To the page: the answer to a form.", {}, ("Location",))
_FOREIGN = problems(HTTPStatus.FORBIDDEN)

OPERATIONS = (
    Operation(
        "GET",
        "/",
        "show_page",
        "Page",
        "A form to sign in, or the sites of who is signed in.",
        (Answer(HTTPStatus.OK, "The page.", {HTML: None}), *problems(HTTPStatus.UNAUTHORIZED, *ANY_TIME)),
        free=True,
    ),
    Operation(
        "POST",
        "/session",
        "sign_in",
        "Page",
        "Begin a session for a token: a cookie that counts instead of it.",
        (
            answered(SignedIn, "The session has begun.", HTTPStatus.CREATED, headers=("Set-Cookie",)),
            _SEE_PAGE,
            *problems(
                HTTPStatus.BAD_REQUEST,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                *ANY_TIME,
            ),
            *_FORM_AGAIN,
        ),
        body=SignIn,
        form=True,
        free=True,
    ),
    Operation(
        "DELETE",
        "/session",
        "sign_out",
        "Page",
        "End the session.",
        (Answer(HTTPStatus.NO_CONTENT, "There is none any more.", {}), *_FOREIGN, *problems(*ANY_TIME)),
        free=True,
    ),
    Operation(
        "POST",
        "/session/end",
        "leave_page",
        "Page",
        "End the session by a form.",
        (_SEE_PAGE, *_FOREIGN, *problems(*ANY_TIME)),
        free=True,
    ),
)
