"""What is put on record of a request that is refused, and the header by which it can be looked up."""

import hashlib

from aiohttp import web

from listener.audit import Audit
from listener.deliveries import Delivery, kept_headers, told
from listener.errors import ListenerError
from listener.request_context import request_context
from listener.web.paths import HOOKS, hook_meant, shown_path

DELIVERY_ID = "X-Delivery-Id"

REFUSING = frozenset({401, 403, 429})
"""The statuses that refuse a call; others only tell that it was wrong."""
REASON_MOST = 500
"""Characters of a reason that are kept."""
UNNAMED = "-"
"""Stands for the name of a hook where none can be told."""


def record(audit: Audit, request: web.Request, error: ListenerError, status: int) -> str:
    """Put a refused request on record; return the id by which it is found there, empty if it is none."""
    delivery = request.path.startswith(HOOKS) or bool(hook_meant(request.path))
    if not (delivery or error.reason or status in REFUSING):
        return ""
    if request_context().quiet:
        audit.flooded()
        return ""
    known = request_context()
    body = known.body if delivery else None
    credential = known.credential or error.credential
    return audit.refused(
        f"{request.method} {shown_path(request.path)}",
        reason=told(error.reason or error.message, REASON_MOST),
        status=status,
        error=error.code,
        client=request.remote or "",
        credential=credential,
        hook=_hook(request) if delivery else "",
        size=(request.content_length or 0) if body is None else len(body),
        # Nobody hashes what is not signed.
        digest=hashlib.sha256(body).hexdigest() if body is not None and credential else "",
        headers=kept_headers(Delivery("", request.raw_headers, b"", 0.0)) if delivery else {},
    )


def _hook(request: web.Request) -> str:
    """Return the hook that was asked for: of a name that holds a slash, what follows may be a secret."""
    return request.match_info.get("hook", "").partition("/")[0] or hook_meant(request.path) or UNNAMED
