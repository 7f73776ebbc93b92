"""Asks CrafterCMS Studio, before a branch is moved, whether it may be moved now.

There are two questions. Each is asked only if its token is configured:

- *Is this node the primary of its cluster?* A replica copies the primary's repositories. A replica with a
  different history does not start any more. `GET /api/2/monitoring/status?token=…` answers 200 on a primary,
  on a Studio without a cluster too, and 202 on a replica (CrafterCMS's documentation of 4.1, Authoring Load
  Balancer).
- *Is the site being published?* Until 4.x `GET /api/2/publish/status?siteId=…`, in 5.x
  `GET /api/2/publish/{siteId}/status` (`PublishController` of craftercms/studio). The publisher of 5.x leaves
  no mark in the repository, so only Studio knows.
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
"""Seconds for which the answer "primary" is valid."""

ROLE = "/api/2/monitoring/status?token={token}"
VERSION = "/api/2/monitoring/version?token={token}"
STATUS_BEFORE_5 = "/api/2/publish/status?siteId={site}"
STATUS = "/api/2/publish/{site}/status"

LATER = frozenset({408, 429, *range(500, 600)})

PUBLISHING = frozenset({"processing", "publishing", "busy"})
"""The publisher is working: it collects the items (`processing`, 4.x) and writes them."""
NOT_PUBLISHING = frozenset({"", "ready", "readywitherrors", "idle", "queued", "started", "stopped", "error"})
"""The publisher is not working. `queued` is one of these: Studio reports it as soon as items are submitted,
even if they are scheduled for next week, so waiting for its end could take forever. The move itself detects a
publish that begins at the same time."""

STANDING_STILL = frozenset({"stopped", "error"})
"""States of a publisher that publishes nothing until somebody starts it again."""

REMEDIES = {
    "studio.token": "put the token of a user who may read the site's publishing status into studio.token",
    "studio.management_token": "put Studio's management token (STUDIO_MANAGEMENT_TOKEN) into it",
}
"""What to do if Studio refuses the token of a setting."""

WORD = re.compile("[a-z_]{1,20}")
"""Text of an answer that a message may quote."""
VERSION_TEXT = re.compile(r"[0-9A-Za-z.+-]{1,40}")
"""The same for a version."""


class StudioClient:
    """One Studio. Callers that ask the same at the same time share the answer.

    A question about publishing is shared only until it is sent. An earlier answer may be older than the
    moment in which the caller stored what is about to move.
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
        """Connect to `url`, which ends with Studio's path; wait `timeout` seconds for each answer."""
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
        """Return what Studio is publishing, which means that the site must not be moved now; empty if it may.

        Raise `NotPrimaryError` on a replica; `StudioUnavailableError` without a valid answer;
        `StudioRefusedError` and `UnknownToStudioError` for problems that only a person can solve.
        """
        role, status = await asyncio.gather(self._role(), self._status(site), return_exceptions=True)
        if isinstance(role, BaseException):
            raise role
        if isinstance(status, BaseException):
            raise status
        return status

    async def off(self, site: str) -> str:
        """Return why Studio does not publish a site at all; empty if it does, or without a token to ask.

        Raise as `check` does.
        """
        if self._token is None:
            return ""
        return await self._requests.answer((STATUS, site), partial(self._ask_off, site, self._token))

    async def version(self) -> str:
        """Return Studio's version; empty without a token to ask. Raise as `check` does."""
        if self._management_token is None:
            return ""
        return await self._requests.answer(VERSION, partial(self._ask_version, self._management_token))

    async def close(self) -> None:
        """Cancel all requests; callers that still wait get an error."""
        await self._requests.close()
        await self._connection.close()

    async def _role(self) -> str:
        """Return an empty text for a primary; raise `NotPrimaryError` for a replica."""
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
            raise StudioRefusedError(f"Studio does not report its cluster role ({status}).", remedy=CHECK_URL)
        if status == ACCEPTED:
            raise NotPrimaryError
        self._primary_until = asked + ROLE_LASTS
        return ""

    async def _ask_status(self, site: str, token: str) -> str:
        return reason(await self._publishing_status(site, token))

    async def _ask_off(self, site: str, token: str) -> str:
        body = await self._publishing_status(site, token)
        reason(body)  # Raises an error for an answer without a status.
        return switched_off(body)

    async def _ask_version(self, token: str) -> str:
        _, body = await self._get(VERSION.format(token=encoded(token)), "studio.management_token")
        place = body.get("version")
        found = (place if isinstance(place, Mapping) else body).get("packageVersion")
        return found if isinstance(found, str) and VERSION_TEXT.fullmatch(found) else ""

    async def _publishing_status(self, site: str, token: str) -> Mapping[str, Any]:
        """Ask the route that worked last time, and the other one if it does not exist any more."""
        self._sent += 1
        headers = {"Authorization": f"Bearer {token}"}
        for route in self._routes:
            status, body = await self._get(route.format(site=encoded(site)), "studio.token", headers)
            if status not in NO_SUCH_ROUTE:
                self._routes = (route, *(other for other in self._routes if other != route))
                return body
        raise UnknownToStudioError

    async def _get(
        self, path: str, credential: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        """Return the status and the JSON object (empty if there is no such route); raise `SyncError`."""
        status, text = await self._connection.get(path, headers)
        if status in (OK, ACCEPTED):
            return status, self._connection.read(text)
        if status in NO_SUCH_ROUTE:
            return status, {}
        raise _refusal(status, credential)


def reason(body: Mapping[str, Any]) -> str:
    """Return what Studio is publishing, from the body of its publishing status; empty if nothing.

    4.x: `{"publishingStatus": {"enabled", "status", "lockOwner", …}}`, where `status` may be null. 5.x:
    `{"publishingStatus": {"enabled", "published", "currentTask"}}`, which has a task as long as a package is
    being published. The fields may also be in the body itself, as in API 1 and in the user interface of 2020
    (3.1), or under `response`.

    An unknown word raises `StudioUnavailableError`, like any invalid answer. Then nothing is moved, and the
    run fails in the end and says why. A move during a publish could lose content.
    """
    return _publishing(_status_in(body))


def switched_off(body: Mapping[str, Any]) -> str:
    """Return why a site is not published at all, from the same body; empty if it is."""
    status = _status_in(body)
    word = status.get("status")
    shown = word.lower() if isinstance(word, str) else ""
    if status.get("enabled") is False:
        return "publishing is switched off"
    return f"the publisher has stopped (status {shown})" if shown in STANDING_STILL else ""


def _status_in(body: Mapping[str, Any]) -> Mapping[str, Any]:
    for place in (body.get("publishingStatus"), body.get("response"), body):
        if isinstance(place, Mapping) and {"status", "currentTask", "enabled"} & place.keys():
            return place
    raise StudioUnavailableError("Studio's answer contains no publishing status.", remedy=CHECK_URL)


def _publishing(status: Mapping[str, Any]) -> str:
    if status.get("currentTask") is not None:
        return "Studio is publishing a package"
    word = status.get("status")
    shown = word.lower() if isinstance(word, str) else "" if word is None else str(type(word))
    if shown in PUBLISHING:
        return f"Studio is publishing (status {shown})"
    if shown in NOT_PUBLISHING:
        return ""
    quoted = f" ({shown})" if WORD.fullmatch(shown) else ""
    raise StudioUnavailableError(
        f"Studio's publishing status is unknown{quoted}.",
        remedy="if the manual does not name this status, remove studio.token",
    )


def _refusal(status: int, credential: str) -> SyncError:
    """Return the error of an unsuccessful answer; `credential` names the setting with the token."""
    if status in LATER:
        return StudioUnavailableError(f"Studio answered {status}.")
    if status in REDIRECTS:
        return redirected(status)
    if status in DENIED:
        return StudioRefusedError(f"Studio refused {credential} ({status}).", remedy=REMEDIES[credential])
    return StudioRefusedError(f"Studio refused the question ({status}).", remedy=CHECK_URL)
