"""Who calls: the token of a request."""

from collections.abc import Callable, Iterable

from aiohttp import web

from listener.access import Token, bearer, identify
from listener.errors import SiteNotFoundError, UnauthorizedError


class Gate:
    """Lets callers with a known token in."""

    def __init__(self, tokens: Iterable[Token], clock: Callable[[], float]) -> None:
        self._tokens = tuple(tokens)
        self._clock = clock

    def caller(self, request: web.Request) -> Token:
        """Return the caller's token; raise `UnauthorizedError` for none, two, an unknown or expired one."""
        headers = request.headers.getall("Authorization", [])
        if len(headers) != 1:
            raise UnauthorizedError
        presented = bearer(headers[0].encode("utf-8", "surrogateescape"))
        token = identify(presented, self._tokens, self._clock()) if presented else None
        if token is None:
            raise UnauthorizedError
        return token

    def caller_for(self, request: web.Request, site: str) -> Token:
        """Return the caller, if `site` is theirs to see; else there is no such site as far as they know."""
        token = self.caller(request)
        if not token.covers(site):
            raise SiteNotFoundError
        return token
