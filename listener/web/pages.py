"""Lists come by pages: how long a page is, and where the next one starts."""

import re
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from listener.errors import BadRequestError
from listener.web.routes import Parameter

MOST = 200
"""How much a page holds at most."""
USUAL = 50

PARAMETERS = (
    Parameter(
        "before", "query", "only what came before the one of this id: the next page", {"type": "string"}
    ),
    Parameter(
        "limit", "query", "how many", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}
    ),
)


class _Numbered(Protocol):
    @property
    def id(self) -> str: ...


def limit(request: web.Request) -> int:
    """Return how much the page may hold; raise `BadRequestError`."""
    asked = request.query.get("limit", str(USUAL))
    if not re.fullmatch("[0-9]{1,4}", asked) or not 1 <= int(asked) <= MOST:
        raise BadRequestError(f"limit is a number from 1 to {MOST}")
    return int(asked)


def following(found: Sequence[_Numbered], most: int) -> str | None:
    """Return after what the next page goes on; None where there is none."""
    return found[-1].id if len(found) == most else None
