"""Lists come by pages: how long a page is, where it starts, and where the next one starts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from listener.errors import BadRequestError
from listener.web.protocol import PAGE_MOST
from listener.web.routes import Parameter

USUAL = 50
"""Entries of a page if the caller names no limit."""

T = TypeVar("T")

PARAMETERS = (
    Parameter(
        "limit",
        "query",
        "how many at most",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": USUAL},
    ),
    Parameter("after", "query", "`next` of the page before", {"type": "string"}),
)
FRESH = Parameter(
    "fresh",
    "query",
    "answer after fresh looks, not from the last ones; if Accept prefers JSON Lines or events, "
    "each site is sent as it arrives",
    {"enum": ["true", "false", ""], "default": "false"},
)
BEFORE = Parameter("before", "query", "an older name of `after`", {"type": "string"})


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    after: str
    """The entry that the page before ended with; empty for the first page."""
    limit: int

    @classmethod
    def asked(cls, request: web.Request) -> "Page":
        """Return what a request asks for; raise `BadRequestError`."""
        query = request.query
        limit, after = query.get("limit", str(USUAL)), query.get("after", query.get("before", ""))
        if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= PAGE_MOST:
            raise BadRequestError(f"limit must be a number from 1 to {PAGE_MOST}.")
        return cls(after, int(limit))

    def cut(self, found: Sequence[T]) -> tuple[Sequence[T], bool]:
        """Return the page, out of up to one entry more, and whether another page follows."""
        return found[: self.limit], len(found) > self.limit


def link(request: web.Request, following: str | None, *filters: Parameter) -> Mapping[str, str]:
    """Return the header that names the next page (RFC 8288), if there is one.

    It repeats the route's own filters alone: a caller may have put a credential into another parameter.
    """
    if following is None:
        return {}
    kept = {"limit", *(each.name for each in filters)}
    query = [(name, value) for name, value in request.query.items() if name in kept]
    return {"Link": f'<{request.rel_url.with_query([*query, ("after", following)])}>; rel="next"'}


def fresh(request: web.Request) -> bool:
    """Return whether a request asks for fresh looks; raise `BadRequestError`."""
    said = request.query.get("fresh", "false")
    if said not in {"true", "false", ""}:
        raise BadRequestError("fresh must be true or false.")
    return said != "false"
