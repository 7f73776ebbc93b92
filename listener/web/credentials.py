"""Who calls: the token of a request."""

from collections.abc import Callable, Iterable

from aiohttp import web

from listener.access import Token, bearer, recognised
from listener.audit import Audit
from listener.errors import ForbiddenError, SiteNotFoundError, UnauthorizedError
from listener.runs import Asker
from listener.web.refusals import trace
from listener.web.views import moment


class Gate:
    """Lets callers with a known token in."""

    def __init__(self, tokens: Iterable[Token], clock: Callable[[], float], audit: Audit) -> None:
        self._tokens = tuple(tokens)
        self._clock = clock
        self._audit = audit

    def caller(self, request: web.Request) -> Token:
        """Return the caller's token; raise `UnauthorizedError` for none, two, an unknown or expired one."""
        headers = request.headers.getall("Authorization", [])
        if len(headers) != 1:
            raise UnauthorizedError(
                f"there are {len(headers)} credentials" if headers else "there is no credential"
            )
        presented = bearer(headers[0].encode("utf-8", "surrogateescape"))
        if presented is None:
            raise UnauthorizedError("the credential is no bearer token")
        token = recognised(presented, self._tokens)
        if token is None:
            raise UnauthorizedError("the token is unknown")
        now, credential = self._clock(), credential_of(token)
        trace().credential = credential
        if token.expired(now):
            raise UnauthorizedError(f"the {credential} has expired, at {moment(token.expires)}")
        self._audit.used_token(token.name, now)
        return token

    def caller_for(self, request: web.Request, site: str) -> Token:
        """Return the caller, if `site` is theirs to see; else there is no such site as far as they know."""
        token = self.caller(request)
        if not token.covers(site):
            raise SiteNotFoundError(reason=uncovered(token, site))
        return token

    def admin(self, request: web.Request) -> Token:
        """Return the caller, who must be an admin; raise `ForbiddenError` for any other."""
        token = self.caller(request)
        if not token.admin:
            raise ForbiddenError("Only an admin may see this.")
        return token


def credential_of(token: Token) -> str:
    """Return a credential's kind and name."""
    return f"token {token.name}"


def asker(request: web.Request, caller: Token) -> Asker:
    """Return who asks, as it is kept and logged."""
    return Asker(caller.name, credential_of(caller), request.remote or "")


def uncovered(token: Token, site: str) -> str:
    """Return why a caller sees nothing of a site, for who may know."""
    return f"the {credential_of(token)} does not cover the site {site}"
