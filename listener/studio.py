"""Asks CrafterCMS Studio, before a branch is moved, whether that may be done now.

Two questions, each asked only where its token is configured:

- *Is this node the primary of its cluster?* A replica copies the primary's repositories, and one whose
  history differs does not start any more. `GET /api/2/monitoring/status?token=…` answers 200 on a primary, on
  a Studio without a cluster too, and 202 on a replica (CrafterCMS's documentation of 4.1, Authoring Load
  Balancer).
- *Is the site being published?* Until 4.x `GET /api/2/publish/status?siteId=…`, in 5.x
  `GET /api/2/publish/{siteId}/status` (`PublishController` of craftercms/studio). What Studio says shows
  what the repository does not: the publisher of 5.x leaves no mark in it.

The management token stands in a URL. Therefore no exception of the HTTP library gets out of here, not even as
the context of ours, and no text here has a URL in it.
"""

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from listener.errors import (
    NotPrimaryError,
    StudioRefusedError,
    StudioUnavailableError,
    SyncError,
    UnknownToStudioError,
)

LARGEST = 1 << 16
"""Bytes of an answer that is read."""

ROLE_LASTS = 5.0
"""Seconds for which a primary is taken to be one still."""

ROLE = "/api/2/monitoring/status?token={token}"
STATUS_BEFORE_5 = "/api/2/publish/status?siteId={site}"
STATUS = "/api/2/publish/{site}/status"

OK, ACCEPTED = 200, 202
REDIRECTS = range(300, 400)
NO_SUCH_ROUTE = frozenset({404, 405})
DENIED = frozenset({401, 403})
LATER = frozenset({408, 429, *range(500, 600)})

PUBLISHING = frozenset({"processing", "publishing", "busy"})
"""The publisher is at work: it collects the items (`processing`, 4.x) and writes them."""
NOT_PUBLISHING = frozenset({"", "ready", "readywitherrors", "idle", "queued", "started", "stopped", "error"})
"""The publisher is not at work. `queued` is among these: Studio says so as soon as items are submitted, also
where they are scheduled for next week, and waiting for its end could take for ever. A publish that begins
beside a move is what the move itself looks out for."""

CHECK_URL = "check studio.url: it is Studio's own address, with /studio at its end"
REMEDIES = {
    "studio.token": "put the token of a user who may read the site's publishing status into studio.token",
    "studio.management_token": "put Studio's management token (STUDIO_MANAGEMENT_TOKEN) into it",
}
"""What to do where Studio refuses the token of a setting."""

WORD = re.compile("[a-z_]{1,20}")
"""What of an answer may stand in a message."""

Question = Callable[[], Coroutine[Any, Any, str]]


class StudioClient:
    """One Studio. Whoever asks what is being asked already shares the answer."""

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
        self._url = url
        self._token = token
        self._management_token = management_token
        self._timeout = timeout
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._under_way: dict[Any, asyncio.Task[str]] = {}
        self._primary_until = -1.0
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
        asking = tuple(self._under_way.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _role(self) -> str:
        """Return nothing from a primary, raise `NotPrimaryError` for a replica."""
        if self._management_token is None or self._clock() < self._primary_until:
            return ""
        return await self._shared(ROLE, partial(self._ask_role, self._management_token))

    async def _status(self, site: str) -> str:
        if self._token is None:
            return ""
        return await self._shared((STATUS, site), partial(self._ask_status, site, self._token))

    async def _shared(self, key: Any, question: Question) -> str:
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._in_time(question))
            task.add_done_callback(partial(self._answered, key))
        await asyncio.wait([task])  # One who stops waiting takes the answer from nobody else.
        if task.cancelled():
            raise StudioUnavailableError("The listener stopped before Studio answered.")
        return task.result()

    def _answered(self, key: Any, task: asyncio.Task[str]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # It counts as seen, whether or not somebody still waits for it.

    async def _in_time(self, question: Question) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                return await question()
        except TimeoutError:
            pass
        raise StudioUnavailableError(f"Studio did not answer within {self._timeout:g} s.")

    async def _ask_role(self, token: str) -> str:
        asked = self._clock()
        status, _ = await self._get(ROLE.format(token=_encoded(token)), "studio.management_token")
        if status in NO_SUCH_ROUTE:
            raise StudioRefusedError(f"Studio tells no cluster role ({status}).", remedy=CHECK_URL)
        if status == ACCEPTED:
            raise NotPrimaryError
        self._primary_until = asked + ROLE_LASTS
        return ""

    async def _ask_status(self, site: str, token: str) -> str:
        """Ask by the route that was right the last time, and by the other one if it is there no more."""
        headers = {"Authorization": f"Bearer {token}"}
        for route in self._routes:
            status, body = await self._get(route.format(site=_encoded(site)), "studio.token", headers)
            if status not in NO_SUCH_ROUTE:
                self._routes = (route, *(other for other in self._routes if other != route))
                return reason(body)
        raise UnknownToStudioError

    async def _get(
        self, path: str, credential: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        """Return an answer's status, and its JSON object unless there is no such route; raise `SyncError`."""
        status, text = await self._exchange(URL(self._url + path, encoded=True), headers)
        if status in (OK, ACCEPTED):
            return status, _object(text)
        if status in NO_SUCH_ROUTE:
            return status, {}
        raise _refusal(status, credential)

    async def _exchange(self, url: URL, headers: Mapping[str, str] | None) -> tuple[int, bytes]:
        try:
            async with self._opened().get(url, headers=headers, allow_redirects=False) as response:
                wanted = response.status in (OK, ACCEPTED)
                return response.status, await _bounded(response.content) if wanted else b""
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise TimeoutError from None
            failure = _described(error)
        raise StudioUnavailableError(f"Studio can't be asked: {failure}.")

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session, made when there is a loop: no cookies, no proxies, nothing unpacked."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session


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
        return StudioUnavailableError(
            f"Studio answered with a redirect ({status}), which is not followed.", remedy=CHECK_URL
        )
    if status in DENIED:
        return StudioRefusedError(f"Studio refused {credential} ({status}).", remedy=REMEDIES[credential])
    return StudioRefusedError(f"Studio refused the question ({status}).", remedy=CHECK_URL)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """Return a body, or its beginning where it is too large to be an answer."""
    body = b""
    async for chunk in content.iter_chunked(1 << 13):
        body += chunk
        if len(body) > LARGEST:
            break
    return body


def _object(text: bytes) -> Mapping[str, Any]:
    found = None
    if len(text) <= LARGEST:
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
    if not isinstance(found, dict):
        raise StudioUnavailableError("Studio's answer is no JSON object.", remedy=CHECK_URL)
    return found


def _described(error: Exception) -> str:
    """Return what went wrong on the way, in words that come from no answer and no URL."""
    kinds: list[tuple[type[Exception], str]] = [
        (aiohttp.ClientConnectorDNSError, "its name is not known"),
        (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted"),
        (aiohttp.ClientSSLError, "it does not speak TLS as it should"),
        (aiohttp.ServerDisconnectedError, "it ended the connection"),
        (aiohttp.ClientPayloadError, "it ended the connection within its answer"),
        (aiohttp.ClientResponseError, "it does not speak HTTP as it should"),
    ]
    for kind, words in kinds:
        if isinstance(error, kind):
            return words
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else "the connection failed"


def _encoded(text: str) -> str:
    return quote(text, safe="")
