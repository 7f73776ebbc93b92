"""Asks Studio whose a credential is, and on which sites they have a role that may sync.

`GET /api/2/users/me` tells the user, `…/me/sites` the sites that they are a member of, and
`…/me/sites/{site}/roles` their roles on one of them (since 3.1; CrafterCMS's documentation, Studio API 2).
Only sites that are configured here are asked about.

A credential is kept in no form but its hash, and that only briefly. What Studio does not answer, or not as it
should, lets nobody in. A flood of made-up credentials does not become one at Studio: few questions are under
way at a time, and clients take turns (`fair_queue.py`). Who was good lately waits for none of them.
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
"""Seconds for which an answer that names somebody counts."""
UNKNOWN_LASTS = 10.0
"""Seconds for which a credential that Studio refused counts as refused."""
FAILED_LASTS = 2.0
"""Seconds after which a question that got no answer is asked again."""

REMEMBERED = 1_000
"""Answers, and clients, that are kept at most."""

AT_ONCE = 8
"""Requests to Studio under way at most."""

GOOD_LASTS = 7 * 86400.0
"""Seconds for which a credential that Studio knew waits for no turn when it is asked about again."""
GOOD_MOST = 10_000

UNKNOWN_MOST = 20
"""Credentials unknown to Studio that one client may show within `UNKNOWN_WINDOW` seconds, or it is slowed."""
UNKNOWN_WINDOW = 60.0

LARGEST = 1 << 22
"""Bytes of an answer: a thousand sites with their descriptions."""

PAGE = 1_000
PAGES_MOST = 20

ME = "/api/2/users/me"
SITES = "/api/2/users/me/sites?offset={offset}&limit={limit}"
ROLES = "/api/2/users/me/sites/{site}/roles"

PREFIX = "studio:"
"""Stands before a user's name. No token's name has a colon."""

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
        """Let in who has one of `roles` on a site that `concerns` this listener, as a member of that site."""
        self._connection = Connection(url, largest=LARGEST)
        self._requests = SharedRequests[Caller | None](timeout)
        self._roles = frozenset(roles)
        self._concerns = concerns
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """For a client, how many unknown credentials it has shown, and until when that counts."""
        self._good: OrderedDict[str, float] = OrderedDict()
        """The credentials that Studio knew, and until when that is remembered."""
        self._queue = FairQueue(self._slowed)

    async def caller(self, credential: StudioCredential, client: str) -> Caller | None:
        """Return whose it is, or None for nobody's; raise `StudioUnavailableError`."""
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

    async def close(self) -> None:
        """Ask nothing more."""
        await self._requests.close()
        await self._connection.close()

    async def _answer(self, credential: StudioCredential, client: str) -> Caller | None:
        """Ask, at once about who was good lately, else in the client's turn; keep the answer."""
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
        """Count a credential that Studio does not know."""
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
        """Return the ids of all sites that the user is a member of, page by page."""
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
        raise StudioUnavailableError(f"Studio lists more than {PAGES_MOST * PAGE} sites of one user.")

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
        """Return the JSON object that Studio answers; None where it denies, or has no such thing."""
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
    """Forget the oldest of what is remembered, down to so many."""
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
    return "access token of Studio's" if credential.bearer else "session of Studio's"


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
    return StudioUnavailableError(
        f"Studio's answer about a caller's {what} is not understood.", remedy=CHECK_URL
    )
