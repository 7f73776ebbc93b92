"""Who calls: by a token, by a session of the page, or by a credential of Studio."""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from aiohttp import web

from listener.access import (
    Caller,
    Delegation,
    Session,
    SessionStore,
    StudioCredential,
    Token,
    basic_password,
    bearer_token,
    digest,
    find_token,
    studio_session,
    studio_token,
)
from listener.audit import Audit
from listener.errors import ForbiddenError, SiteNotFoundError, SyncError, UnauthorizedError
from listener.request_context import request_context
from listener.runs import Asker
from listener.web.answers.view import rfc3339
from listener.web.cookies import cookie, of_own_page, session_id

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""

RANDOM_BYTES = 32


class Gate:
    """Lets callers with a valid credential in."""

    def __init__(
        self,
        tokens: Iterable[Token],
        sessions: SessionStore,
        delegation: Delegation | None,
        *,
        lasts: float,
        clock: Callable[[], float],
        audit: Audit,
    ) -> None:
        """Sessions last for `lasts` seconds. Without `delegation`, credentials of Studio are refused."""
        self._tokens = tuple(tokens)
        self._sessions = sessions
        self._delegation = delegation
        self._lasts = lasts
        self._clock = clock
        self._audit = audit

    async def caller(self, request: web.Request) -> Caller:
        """Return who calls; raise `UnauthorizedError` for no, two, an unknown or an expired credential.

        If there is an `Authorization` header, cookies do not count. A request that changes something by a
        session of the page must come from the page, else `ForbiddenError`: other sites can't use the session.
        """
        caller = await self._caller(request)
        request_context().mark_verified()
        return caller

    async def _caller(self, request: web.Request) -> Caller:
        if "Authorization" in request.headers:
            return await self._by_header(request)
        token = await self._by_session(request)
        if token is None:
            return await self._by_studio(request, _studio_session(request), "there is no credential")
        if request.method not in SAFE:
            require_own_page(request)
        return self._accepted(token, "session of token")

    async def caller_for(self, request: web.Request, site: str) -> Caller:
        """Return the caller; raise `SiteNotFoundError` if they may not see the site."""
        caller = await self.caller(request)
        if not caller.covers(site):
            raise SiteNotFoundError(reason=uncovered(caller, site))
        return caller

    async def admin(self, request: web.Request) -> Caller:
        """Return the caller; raise `ForbiddenError` unless they are an admin."""
        caller = await self.caller(request)
        if not caller.admin:
            raise ForbiddenError("Only an admin may see this.")
        return caller

    async def sign_in(self, request: web.Request, presented: str) -> tuple[str, Session, Caller]:
        """Begin a session for the text of a token; return its id. The browser's earlier session ends."""
        token = self._token(presented.strip().encode("utf-8", "surrogateescape"))
        if token is None:
            raise _guessed("the token is unknown")
        request_context().mark_verified()
        now = self._clock()
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
            raise UnauthorizedError(f"there are {len(headers)} credentials")
        header = headers[0].encode("utf-8", "surrogateescape")
        shown = bearer_token(header)
        presented = shown or basic_password(header)
        if presented is None:
            raise UnauthorizedError("the credential is not a token, by Bearer or by Basic")
        token = self._token(presented)
        if token is None:
            studios = None if shown is None else studio_token(shown)
            return await self._by_studio(request, studios, "the token is unknown")
        return self._accepted(token)

    def _token(self, presented: bytes) -> Token | None:
        """Return the token with that text, if there is one; raise `UnauthorizedError` if it has expired."""
        token = find_token(presented, self._tokens)
        if token is not None and not token.valid(self._clock()):
            request_context().credential = token.caller.credential
            raise UnauthorizedError(f"the token {token.name} has expired, at {rfc3339(token.expires or 0)}")
        return token

    async def _by_session(self, request: web.Request) -> Token | None:
        presented = session_id(request)
        session = None if presented is None else await self._sessions.session(digest(presented.encode()))
        return None if session is None else session.token_among(self._tokens, self._clock())

    async def _by_studio(
        self, request: web.Request, credential: StudioCredential | None, otherwise: str
    ) -> Caller:
        """Return the caller whom Studio knows. If it fails, the record says why, and the answer does not."""
        if credential is None or self._delegation is None:
            raise _guessed(otherwise) if "Authorization" in request.headers else UnauthorizedError(otherwise)
        try:
            caller = await self._delegation.caller(credential, request.remote or "")
        except SyncError as error:
            raise UnauthorizedError(error.message) from None
        if caller is None:
            raise _guessed("Studio does not know the credential")
        request_context().credential = caller.credential
        return caller

    def _accepted(self, token: Token, by: str = "token") -> Caller:
        """Return the token's caller, and count the use: every use that lets somebody in comes by here."""
        caller = replace(token.caller, credential=f"{by} {token.name}")
        request_context().credential = caller.credential
        self._audit.used_token(token.name, self._clock())
        return caller


def _guessed(reason: str) -> UnauthorizedError:
    # The edge answers guesses slowly, so that trying many tokens takes too long.
    error = UnauthorizedError(reason)
    error.guess = True
    return error


def asker(request: web.Request, caller: Caller) -> Asker:
    """Return who asks, for the store and the log."""
    return Asker(caller.name, caller.credential, request.remote or "")


def uncovered(caller: Caller, site: str) -> str:
    """Return why a caller may not see a site, for the record."""
    return f"the {caller.credential} does not cover the site {site}"


def require_own_page(request: web.Request) -> None:
    """Raise `ForbiddenError` unless the browser says that the listener's own page sent the request."""
    if of_own_page(request) is not True:
        raise ForbiddenError("A session counts only for requests from the listener's own page.")


def _studio_session(request: web.Request) -> StudioCredential | None:
    header = request.headers.getall("X-XSRF-TOKEN", [])
    session, xsrf = cookie(request, "JSESSIONID"), cookie(request, "XSRF-TOKEN")
    if session is None or xsrf is None or len(header) != 1:
        return None
    return studio_session(session, xsrf, header[0])
