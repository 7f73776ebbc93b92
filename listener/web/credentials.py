"""Who calls: by a token, by a session of the page, or by what only Studio can judge."""

import secrets
from collections.abc import Callable, Iterable

from aiohttp import web

from listener.access import (
    Caller,
    Delegation,
    Session,
    SessionStore,
    StudioCredential,
    Token,
    bearer,
    digest,
    known,
    password,
    studio_session,
    studio_token,
)
from listener.errors import ForbiddenError, SiteNotFoundError, SyncError, UnauthorizedError
from listener.journal import Log
from listener.web.cookies import cookie, of_own_page, session_id

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""

RANDOM_BYTES = 32


class Gate:
    """Lets callers in."""

    def __init__(
        self,
        tokens: Iterable[Token],
        sessions: SessionStore,
        delegation: Delegation | None,
        *,
        lasts: float,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        """Sessions last for `lasts` seconds; without `delegation`, Studio's credentials let nobody in."""
        self._tokens = tuple(tokens)
        self._sessions = sessions
        self._delegation = delegation
        self._lasts = lasts
        self._clock = clock
        self._log = log

    async def caller(self, request: web.Request) -> Caller:
        """Return who calls; raise `UnauthorizedError` for none, two, an unknown or an expired credential.

        What stands in `Authorization` counts and no cookie beside it. A request that changes something and
        comes by the page's session must come from the page: else `ForbiddenError`.
        """
        if "Authorization" in request.headers:
            return await self._by_header(request)
        token = await self._by_session(request)
        if token is None:
            return await self._by_studio(request, _studio_session(request))
        if request.method not in SAFE:
            demand_own_page(request)
        return self._accepted(token)

    async def caller_for(self, request: web.Request, site: str) -> Caller:
        """Return the caller, if `site` is theirs to see; else there is no such site as far as they know."""
        caller = await self.caller(request)
        if not caller.covers(site):
            raise SiteNotFoundError
        return caller

    async def sign_in(self, request: web.Request, presented: str) -> tuple[str, Session, Caller]:
        """Begin a session for a token's text; return its id. The session that was there before ends."""
        token = known(presented.strip().encode("utf-8", "surrogateescape"), self._tokens)
        now = self._clock()
        if token is None or not token.valid(now):
            raise UnauthorizedError
        await self.sign_out(request)
        made = secrets.token_urlsafe(RANDOM_BYTES)
        expires = min(now + self._lasts, token.expires or now + self._lasts)
        session = Session(digest(made.encode()), token.name, token.sha256, expires)
        await self._sessions.begin_session(session)
        return made, session, self._accepted(token)

    async def sign_out(self, request: web.Request) -> None:
        """End the request's session, if it has one."""
        presented = session_id(request)
        if presented is not None:
            await self._sessions.end_session(digest(presented.encode()))

    async def _by_header(self, request: web.Request) -> Caller:
        headers = request.headers.getall("Authorization")
        if len(headers) != 1:
            raise UnauthorizedError
        header = headers[0].encode("utf-8", "surrogateescape")
        shown = bearer(header)
        presented = shown or password(header)
        if presented is None:
            raise UnauthorizedError
        token = known(presented, self._tokens)
        if token is None:
            return await self._by_studio(request, None if shown is None else studio_token(shown))
        if not token.valid(self._clock()):
            raise UnauthorizedError
        return self._accepted(token)

    async def _by_session(self, request: web.Request) -> Token | None:
        presented = session_id(request)
        session = None if presented is None else await self._sessions.session(digest(presented.encode()))
        return None if session is None else session.token_among(self._tokens, self._clock())

    async def _by_studio(self, request: web.Request, credential: StudioCredential | None) -> Caller:
        """Return who Studio says it is. Why it says nothing is logged, and is no stranger's affair."""
        if credential is None or self._delegation is None:
            raise UnauthorizedError
        client = request.remote or ""
        try:
            caller = await self._delegation.caller(credential, client)
        except SyncError as error:
            self._log.log(30, "caller", client=client, error=error.code, message=error.message)
            raise UnauthorizedError from None
        if caller is None:
            raise UnauthorizedError
        return caller

    def _accepted(self, token: Token) -> Caller:
        """Return whose token it is: every use of a token that lets somebody in comes by here."""
        return token.caller


def demand_own_page(request: web.Request) -> None:
    """Raise `ForbiddenError` unless a page of ours sent the request, and its browser says so."""
    if of_own_page(request) is not True:
        raise ForbiddenError("A session counts for requests from the listener's own page alone.")


def _studio_session(request: web.Request) -> StudioCredential | None:
    header = request.headers.getall("X-XSRF-TOKEN", [])
    session, xsrf = cookie(request, "JSESSIONID"), cookie(request, "XSRF-TOKEN")
    if session is None or xsrf is None or len(header) != 1:
        return None
    return studio_session(session, xsrf, header[0])
