"""Asks CrafterCMS Studio, before a branch is moved, whether that may be done now.

Two questions, each asked only where its token is configured:

- *Is this node the primary of its cluster?* A replica copies the primary's repositories, and one whose
  history differs does not start any more. `GET /api/2/monitoring/status?token=…` answers 200 on a primary, on
  a Studio without a cluster too, and 202 on a replica (CrafterCMS's documentation of 4.1, Authoring Load
  Balancer).
- *Is the site being published?* Until 4.x `GET /api/2/publish/status?siteId=…`, in 5.x
  `GET /api/2/publish/{siteId}/status` (`PublishController` of craftercms/studio). What Studio says shows
  what the repository does not: the publisher of 5.x leaves no mark in it.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from listener.errors import (
    NotPrimaryError,
    StudioRefusedError,
    StudioUnavailableError,
    SyncError,
    UnknownToStudioError,
)
from listener.studio.connection import (
    ACCEPTED,
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

ROLE_LASTS = 5.0
"""Seconds for which a primary is taken to be one still."""

ROLE = "/api/2/monitoring/status?token={token}"
STATUS_BEFORE_5 = "/api/2/publish/status?siteId={site}"
STATUS = "/api/2/publish/{site}/status"

LATER = frozenset({408, 429, *range(500, 600)})

PUBLISHING = frozenset({"processing", "publishing", "busy"})
"""The publisher is at work: it collects the items (`processing`, 4.x) and writes them."""
NOT_PUBLISHING = frozenset({"", "ready", "readywitherrors", "idle", "queued", "started", "stopped", "error"})
"""The publisher is not at work. `queued` is among these: Studio says so as soon as items are submitted, also
where they are scheduled for next week, and waiting for its end could take for ever. A publish that begins
beside a move is what the move itself looks out for."""

REMEDIES = {
    "studio.token": "put the token of a user who may read the site's publishing status into studio.token",
    "studio.management_token": "put Studio's management token (STUDIO_MANAGEMENT_TOKEN) into it",
}
"""What to do where Studio refuses the token of a setting."""

WORD = re.compile("[a-z_]{1,20}")
"""What of an answer may stand in a message."""


class StudioClient:
    """One Studio. Those who ask the same at the same time share the answer.

    A question about publishing is shared until it is sent: the answer to an earlier one may be from before
    whoever asks now had made durable what is about to move.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        management_token: str | None,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask at `url`, which ends with Studio's own path, and wait `timeout` seconds for each answer."""
        self._connection = Connection(url)
        self._requests = SharedRequests[str](timeout)
        self._token = token
        self._management_token = management_token
        self._clock = clock
        self._primary_until = -1.0
        self._sent = 0
        """How many questions about publishing were sent."""
        self._routes: tuple[str, ...] = (STATUS_BEFORE_5, STATUS)

    async def check(self, site: str) -> str:
        """Return why nothing of a site may be moved now (what Studio is publishing); empty if it may.

        Raise `NotPrimaryError` on a replica; `StudioUnavailableError` for no answer, or one that is not
        understood; `StudioRefusedError` and `UnknownToStudioError` for what only a person can put right.
        """
        role, status = await asyncio.gather(self._role(), self._status(site), return_exceptions=True)
        if isinstance(role, BaseException):
            raise role
        if isinstance(status, BaseException):
            raise status
        return status

    async def close(self) -> None:
        """Ask nothing more; whoever still waits for an answer gets none."""
        await self._requests.close()
        await self._connection.close()

    async def _role(self) -> str:
        """Return nothing from a primary, raise `NotPrimaryError` for a replica."""
        if self._management_token is None or self._clock() < self._primary_until:
            return ""
        return await self._requests.answer(ROLE, partial(self._ask_role, self._management_token))

    async def _status(self, site: str) -> str:
        if self._token is None:
            return ""
        key = STATUS, site, self._sent
        return await self._requests.answer(key, partial(self._ask_status, site, self._token))

    async def _ask_role(self, token: str) -> str:
        asked = self._clock()
        status, _ = await self._get(ROLE.format(token=encoded(token)), "studio.management_token")
        if status in NO_SUCH_ROUTE:
            raise StudioRefusedError(f"Studio tells no cluster role ({status}).", remedy=CHECK_URL)
        if status == ACCEPTED:
            raise NotPrimaryError
        self._primary_until = asked + ROLE_LASTS
        return ""

    async def _ask_status(self, site: str, token: str) -> str:
        """Ask by the route that was right the last time, and by the other one if it is there no more."""
        self._sent += 1
        headers = {"Authorization": f"Bearer {token}"}
        for route in self._routes:
            status, body = await self._get(route.format(site=encoded(site)), "studio.token", headers)
            if status not in NO_SUCH_ROUTE:
                self._routes = (route, *(other for other in self._routes if other != route))
                return reason(body)
        raise UnknownToStudioError

    async def _get(
        self, path: str, credential: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        """Return an answer's status, and its JSON object unless there is no such route; raise `SyncError`."""
        status, text = await self._connection.get(path, headers)
        if status in (OK, ACCEPTED):
            return status, self._connection.read(text)
        if status in NO_SUCH_ROUTE:
            return status, {}
        raise _refusal(status, credential)


def reason(body: Mapping[str, Any]) -> str:
    """Return what Studio is publishing by the body of its publishing status; empty if nothing.

    4.x: `{"publishingStatus": {"enabled", "status", "lockOwner", …}}`, where `status` may be null. 5.x:
    `{"publishingStatus": {"enabled", "published", "currentTask"}}`, where a task is there for as long as a
    package is being published. The fields may also stand in the body itself, where the user interface of 2020
    (3.1) and API 1 have them, or under `response`.

    A word that is not known raises `StudioUnavailableError`, as any answer that is not understood: nothing is
    moved, and the run fails in the end and says why. Moving beside a publish could lose content.
    """
    for place in (body.get("publishingStatus"), body.get("response"), body):
        if isinstance(place, Mapping) and {"status", "currentTask", "enabled"} & place.keys():
            return _publishing(place)
    raise StudioUnavailableError("Studio's answer holds no publishing status.", remedy=CHECK_URL)


def _publishing(status: Mapping[str, Any]) -> str:
    if status.get("currentTask") is not None:
        return "Studio is publishing a package"
    word = status.get("status")
    told = word.lower() if isinstance(word, str) else "" if word is None else str(type(word))
    if told in PUBLISHING:
        return f"Studio is publishing (status {told})"
    if told in NOT_PUBLISHING:
        return ""
    shown = f" ({told})" if WORD.fullmatch(told) else ""
    raise StudioUnavailableError(
        f"Studio's publishing status is not understood{shown}.",
        remedy="where this Studio says what the manual does not name, do without studio.token",
    )


def _refusal(status: int, credential: str) -> SyncError:
    """Return what an answer without an answer means; `credential` names the setting with the token."""
    if status in LATER:
        return StudioUnavailableError(f"Studio answered {status}.")
    if status in REDIRECTS:
        return redirected(status)
    if status in DENIED:
        return StudioRefusedError(f"Studio refused {credential} ({status}).", remedy=REMEDIES[credential])
    return StudioRefusedError(f"Studio refused the question ({status}).", remedy=CHECK_URL)
