"""What is recorded and logged of a refused request. Its path may hold a secret, which stays out."""

import hashlib
import re

from aiohttp import web

from listener.audit import Audit
from listener.deliveries import Delivery, excerpt, kept_headers
from listener.errors import ListenerError
from listener.redaction import REDACTED
from listener.request_context import request_context

HOOKS = "/hooks/"

REFUSING = frozenset({401, 403, 429})
"""The statuses that refuse a call. The other errors only say that the call was wrong."""
REASON_MOST = 500
"""Characters of a reason that are kept."""
UNNAMED = "-"
"""The name of the hook in the record if the path names none."""

_BEHIND_A_HOOK = re.compile(r"(/hooks(?:/|%2F)+[^/%]*(?:/|%)).+", re.DOTALL | re.IGNORECASE)
_SLASHES_MOST = 3
"""Slashes in the longest path of a hook, /hooks/NAME/SECRET."""


def record(audit: Audit, request: web.Request, error: ListenerError, status: int) -> str:
    """Record a refused request; return the id of the record, empty if the request needs no record."""
    delivery = request.path.startswith(HOOKS) or bool(misspelt_hook(request.path))
    if not (delivery or error.reason or status in REFUSING):
        return ""
    known = request_context()
    if known.quiet:
        audit.flooded()
        return ""
    body = known.body if delivery else None
    credential = known.credential or error.credential
    return audit.refused(
        f"{request.method} {shown_path(request.path)}",
        reason=excerpt(error.reason or error.message, REASON_MOST),
        status=status,
        error=error.code,
        client=request.remote or "",
        credential=credential,
        hook=_hook(request) if delivery else "",
        size=(request.content_length or 0) if body is None else len(body),
        # A body without a valid signature is not hashed: that would cost CPU for strangers.
        digest=hashlib.sha256(body).hexdigest() if body is not None and credential else "",
        headers=kept_headers(Delivery("", request.raw_headers, b"", 0.0)) if delivery else {},
    )


def _hook(request: web.Request) -> str:
    """Return the hook's name up to the first slash: the rest may be a secret."""
    return request.match_info.get("hook", "").partition("/")[0] or misspelt_hook(request.path) or UNNAMED


def misspelt_hook(path: str) -> str:
    """Return the hook that a path with superfluous slashes names; empty for any other path."""
    plain = re.sub("/+", "/", path).rstrip("/")
    name = plain.removeprefix(HOOKS).partition("/")[0]
    return name if plain != path and plain.startswith(HOOKS) and plain.count("/") <= _SLASHES_MOST else ""


def shown_path(path: str) -> str:
    """Return a path for the log. What follows a hook's name is a secret, or nearly one: it is left out."""
    return _BEHIND_A_HOOK.sub(rf"\g<1>{REDACTED}", path)
