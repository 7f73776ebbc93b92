"""Asks Studio who a credential belongs to, and on which sites that user has a role that may sync.

`GET /api/2/users/me` returns the user, `…/me/sites` the user's sites, and `…/me/sites/{site}/roles` the roles
on one of them (since 3.1; CrafterCMS's documentation, Studio API 2). Only sites that are configured here are
asked about.

Only the hash of a credential is kept, and only for a short time. Without a valid answer from Studio, nobody
is let in. A flood of invented credentials does not become a flood at Studio: few requests run at a time, and
clients take turns (`fair_queue.py`). A credential that was valid recently does not wait for a turn.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from listener.access import Caller, Role, StudioCredential
from listener.errors import StudioUnavailableError
from listener.networks import client_key
from listener.studio.connection import (
    CHECK_URL,
    DENIED,
    NO_SUCH_ROUTE,
    OK,
    REDIRECTS,
    Connection,
    SharedRequests,
    encoded,
    redirected,
)
from listener.studio.fair_queue import FairQueue

KNOWN_LASTS = 60.0
"""Seconds for which an answer with a user is valid."""
UNKNOWN_LASTS = 10.0
"""Seconds for which a refusal of Studio is valid."""
FAILED_LASTS = 2.0
"""Seconds until a request without an answer is tried again."""

REMEMBERED = 1_000
"""The most answers, and the most clients, that are remembered."""

AT_ONCE = 8
"""The most concurrent requests to Studio."""

GOOD_LASTS = 7 * 86400.0
"""Seconds for which a credential that Studio knew does not wait for a turn."""
GOOD_MOST = 10_000

UNKNOWN_MOST = 20
"""Unknown credentials that one client may show in `UNKNOWN_WINDOW` seconds before it is slowed down."""
UNKNOWN_WINDOW = 60.0

LARGEST = 1 << 22
"""Bytes of an answer: enough for a thousand sites with their descriptions."""

PAGE = 1_000
PAGES_MOST = 20

ME = "/api/2/users/me"
SITES = "/api/2/users/me/sites?offset={offset}&limit={limit}"
ROLES = "/api/2/users/me/sites/{site}/roles"

PREFIX = "studio:"
"""The prefix of a user's name. No token's name has a colon."""

_NAME = re.compile(r"[^\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]{1,255}")


@dataclass(frozen=True, slots=True)
class _Answer:
    caller: Caller | None
    until: float
    failure: str = ""


class StudioCallers:
    """A `Delegation` to one Studio."""

    def __init__(
        self,
        url: str,
        *,
        roles: Collection[str],
        concerns: Callable[[str], bool],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let in users with one of `roles` on a site that `concerns` us, as members of that site."""
        self._connection = Connection(url, largest=LARGEST)
        self._requests = SharedRequests[Caller | None](timeout)
        self._roles = frozenset(roles)
        self._concerns = concerns
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """How many unknown credentials each client has shown, and until when that counts."""
        self._good: OrderedDict[str, float] = OrderedDict()
        """The credentials that Studio knew, and until when they are remembered."""
        self._queue = FairQueue(self._slowed)

    async def caller(self, credential: StudioCredential, client: str) -> Caller | None:
        """Return the caller, or None for an unknown credential; raise `StudioUnavailableError`."""
        key, client = credential.key, client_key(client)
        kept = self._answers.get(key)
        if kept is not None and self._clock() < kept.until:
            if kept.failure:
                raise StudioUnavailableError(kept.failure)
            return kept.caller
        try:
            return await self._requests.answer(key, partial(self._answer, credential, client))
        except StudioUnavailableError as error:
            self._keep(key, None, FAILED_LASTS, error.message)
            raise

    async def reach(self) -> None:
        """Raise `StudioUnavailableError` unless Studio answers that a credential is missing."""
        await self._requests.answer("", self._ask_nobody)

    async def _ask_nobody(self) -> None:
        status, _ = await self._connection.get(ME)
        if status not in DENIED:
            raise StudioUnavailableError(f"Studio answered {status}.", remedy=CHECK_URL)

    async def close(self) -> None:
        """Stop asking, and close the connections."""
        await self._requests.close()
        await self._connection.close()

    async def _answer(self, credential: StudioCredential, client: str) -> Caller | None:
        """Ask at once about a recently valid credential, else in the client's turn; remember the answer."""
        key = credential.key
        if self._clock() < self._good.get(key, 0.0):
            caller = await self._ask(credential)
        else:
            async with self._queue.turn(client):
                caller = await self._ask(credential)
        self._good.pop(key, None)
        if caller is None:
            self._keep(key, None, UNKNOWN_LASTS)
            self._count(client)
        else:
            self._keep(key, caller, KNOWN_LASTS)
            self._good[key] = self._clock() + GOOD_LASTS
            _shorten(self._good, GOOD_MOST)
        return caller

    def _slowed(self, client: str) -> bool:
        count, until = self._unknown.get(client, (0, 0.0))
        return count >= UNKNOWN_MOST and self._clock() < until

    def _count(self, client: str) -> None:
        """Count an unknown credential of a client."""
        count, until = self._unknown.pop(client, (0, 0.0))
        now = self._clock()
        if now >= until:
            count, until = 0, now + UNKNOWN_WINDOW
        self._unknown[client] = count + 1, until
        _shorten(self._unknown, REMEMBERED)

    def _keep(self, key: str, caller: Caller | None, lasts: float, failure: str = "") -> None:
        self._answers.pop(key, None)
        self._answers[key] = _Answer(caller, self._clock() + lasts, failure)
        _shorten(self._answers, REMEMBERED)

    async def _ask(self, credential: StudioCredential) -> Caller | None:
        headers = _headers(credential)
        me = await self._get(ME, headers)
        if me is None:
            return None
        name = _name(me)
        sites = [site for site in await self._sites(headers) if self._concerns(site)]
        asked = await asyncio.gather(*(self._covers(site, headers) for site in sites), return_exceptions=True)
        for answer in asked:
            if isinstance(answer, BaseException):
                raise answer
        covered = frozenset(site for site, answer in zip(sites, asked, strict=True) if answer)
        return Caller(f"{PREFIX}{name}", Role.MEMBER, covered, _credential(credential))

    async def _sites(self, headers: Mapping[str, str]) -> list[str]:
        """Return the ids of all sites of the user, which Studio lists by pages."""
        found: dict[str, None] = {}
        offset = 0
        for _ in range(PAGES_MOST):
            body = await self._get(SITES.format(offset=offset, limit=PAGE), headers) or {}
            listed, total = body.get("sites"), body.get("total")
            if not isinstance(listed, list) or not isinstance(total, int):
                raise _odd("sites")
            found |= dict.fromkeys(_site_id(each) for each in listed)
            offset += len(listed)
            if not listed or offset >= total:
                return list(found)
        raise StudioUnavailableError(f"Studio lists more than {PAGES_MOST * PAGE} sites for one user.")

    async def _covers(self, site: str, headers: Mapping[str, str]) -> bool:
        body = await self._get(ROLES.format(site=encoded(site)), headers, absent=NO_SUCH_ROUTE)
        if body is None:
            return False
        roles = body.get("roles")
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise _odd("roles")
        return not self._roles.isdisjoint(roles)

    async def _get(
        self, path: str, headers: Mapping[str, str], absent: Collection[int] = ()
    ) -> Mapping[str, Any] | None:
        """Return Studio's JSON object; None if it refuses, or if there is no such thing."""
        async with self._slots:
            status, text = await self._connection.get(path, headers)
        if status == OK:
            return self._connection.read(text)
        if status in DENIED or status in absent:
            return None
        if status in REDIRECTS:
            raise redirected(status)
        raise StudioUnavailableError(f"Studio answered {status}.", remedy=CHECK_URL)


def _shorten(remembered: OrderedDict[str, Any], most: int) -> None:
    """Forget the oldest entries beyond the limit."""
    while len(remembered) > most:
        remembered.popitem(last=False)


def _headers(credential: StudioCredential) -> dict[str, str]:
    if credential.bearer:
        return {"Authorization": f"Bearer {credential.bearer}"}
    return {
        "Cookie": f"JSESSIONID={credential.session}; XSRF-TOKEN={credential.xsrf}",
        "X-XSRF-TOKEN": credential.xsrf,
    }


def _credential(credential: StudioCredential) -> str:
    return "Studio access token" if credential.bearer else "Studio session"


def _name(body: Mapping[str, Any]) -> str:
    user = body.get("authenticatedUser")
    name = user.get("username") if isinstance(user, Mapping) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _odd("user")
    return name


def _site_id(listed: Any) -> str:
    site = listed.get("siteId") if isinstance(listed, Mapping) else None
    if not isinstance(site, str):
        raise _odd("sites")
    return site


def _odd(what: str) -> StudioUnavailableError:
    return StudioUnavailableError(f"Studio's answer about a caller's {what} is not valid.", remedy=CHECK_URL)
