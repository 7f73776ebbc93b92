"""The page's cookie, and whether a request comes from the page."""

from aiohttp import web

PLAIN = "sync-staging"
SECURE = f"__Host-{PLAIN}"
"""A browser accepts a cookie with this prefix only from this very host, by TLS (RFC 6265bis, 4.1.3.2)."""


def cookie(request: web.Request, name: str) -> str | None:
    """Return the value of a cookie; None if it is missing, or sent twice: nobody knows which one is right."""
    pairs = "; ".join(request.headers.getall("Cookie", [])).split(";")
    values = [value.strip() for key, equals, value in (pair.partition("=") for pair in pairs)
              if equals and key.strip() == name]  # fmt: skip
    return values[0] if len(values) == 1 and values[0] else None


def session_id(request: web.Request) -> str | None:
    """Return the id in the request's session cookie, if there is one."""
    presented = cookie(request, _name(request))
    return presented if presented is not None and presented.isascii() else None


def set_session(request: web.Request, response: web.StreamResponse, made: str, lasts: float) -> None:
    """Give the browser a session cookie: scripts can't read it, and only the page's own requests send it."""
    response.set_cookie(
        _name(request),
        made,
        max_age=max(int(lasts), 1),
        path="/",
        secure=request.secure,
        httponly=True,
        samesite="Strict",
    )


def clear_session(request: web.Request, response: web.StreamResponse) -> None:
    """Remove the session cookie from the browser."""
    response.del_cookie(_name(request), path="/", secure=request.secure, httponly=True, samesite="Strict")


def of_own_page(request: web.Request) -> bool | None:
    """Return whether the listener's own page sent a request; None if its browser does not say.

    Browsers say it in `Sec-Fetch-Site` (W3C Fetch Metadata), which no script can forge; old ones in `Origin`.
    """
    sites = request.headers.getall("Sec-Fetch-Site", [])
    if sites:
        return sites == ["same-origin"]
    origins = request.headers.getall("Origin", [])
    if origins:
        return origins == [f"{request.scheme}://{request.host}"]
    return None


def _name(request: web.Request) -> str:
    return SECURE if request.secure else PLAIN
