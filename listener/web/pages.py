"""Pages of a history: how long one is, and after what it goes on."""

import re
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from listener.errors import BadRequestError

MOST = 200
"""How much one page holds at most."""
USUAL = 50


class _Numbered(Protocol):
    @property
    def id(self) -> str: ...


def limit(request: web.Request) -> int:
    """Return how much a page is to hold, or raise `BadRequestError`."""
    asked = request.query.get("limit", str(USUAL))
    if not re.fullmatch("[0-9]{1,4}", asked) or not 1 <= int(asked) <= MOST:
        raise BadRequestError(f"limit is a number from 1 to {MOST}")
    return int(asked)


def following(found: Sequence[_Numbered], most: int) -> str | None:
    """Return after what the next page goes on; None where there is none."""
    return found[-1].id if len(found) == most else None
