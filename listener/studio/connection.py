"""HTTP to Studio: GET requests within limits. Concurrent callers share the same request.

A URL or a header may contain a credential. Therefore no exception of the HTTP library leaves this module, not
even as the context of another one, and no message contains a URL.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from listener.errors import StudioUnavailableError

T = TypeVar("T")

LARGEST = 1 << 16
"""Bytes that are read of an answer."""

OK, ACCEPTED = 200, 202
REDIRECTS = range(300, 400)
NO_SUCH_ROUTE = frozenset({404, 405})
DENIED = frozenset({401, 403})

CHECK_URL = "check studio.url: it is Studio's own address, with /studio at its end"


class Connection:
    """A connection to one Studio, without cookies, proxies or redirects."""

    def __init__(self, url: str, *, largest: int = LARGEST) -> None:
        """Connect to `url`, which ends with Studio's path; read up to `largest` bytes of an answer."""
        self._url = url
        self._largest = largest
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Return the status, and the body of a successful answer; raise `StudioUnavailableError`."""
        url = URL(self._url + path, encoded=True)
        try:
            async with self._opened().get(url, headers=headers, allow_redirects=False) as response:
                wanted = response.status in (OK, ACCEPTED)
                return response.status, await self._bounded(response.content) if wanted else b""
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise TimeoutError from None
            failure = _described(error)
        raise StudioUnavailableError(f"The request to Studio failed: {failure}.")

    def read(self, text: bytes) -> Mapping[str, Any]:
        """Parse a body as a JSON object; raise `StudioUnavailableError`."""
        found = None
        if len(text) <= self._largest:
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(text)
        if not isinstance(found, dict):
            raise StudioUnavailableError("Studio's answer is not a JSON object.", remedy=CHECK_URL)
        return found

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _bounded(self, content: aiohttp.StreamReader) -> bytes:
        """Return a body, or only its beginning if it is too large."""
        body = b""
        async for chunk in content.iter_chunked(1 << 13):
            body += chunk
            if len(body) > self._largest:
                break
        return body

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session, which is made on first use, inside the event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session


class SharedRequests(Generic[T]):
    """Requests that are under way. A caller with the same key shares the answer."""

    def __init__(self, timeout: float) -> None:
        """Wait `timeout` seconds for each answer."""
        self._timeout = timeout
        self._under_way: dict[Any, asyncio.Task[T]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._under_way

    def __len__(self) -> int:
        return len(self._under_way)

    async def answer(self, key: Any, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the answer to the request with this key; raise what it raises."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._in_time(question))
            task.add_done_callback(partial(self._answered, key))
        await asyncio.wait([task])  # A caller that is cancelled does not cancel the request.
        if task.cancelled():
            raise StudioUnavailableError("The listener stopped before Studio answered.")
        return task.result()

    async def close(self) -> None:
        """Cancel all requests; callers that still wait get an error."""
        asking = tuple(self._under_way.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _answered(self, key: Any, task: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # Marks the exception as retrieved, even if nobody waits for it any more.

    async def _in_time(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await question()
        except TimeoutError:
            pass
        raise StudioUnavailableError(f"Studio did not answer within {self._timeout:g} s.")


def encoded(text: str) -> str:
    """Return text, encoded as one segment of a URL."""
    return quote(text, safe="")


def redirected(status: int) -> StudioUnavailableError:
    """Return the error for a redirect."""
    return StudioUnavailableError(
        f"Studio answered with a redirect ({status}), which is not followed.", remedy=CHECK_URL
    )


def _described(error: Exception) -> str:
    """Describe a failed request without any text from an answer or a URL."""
    kinds: list[tuple[type[Exception], str]] = [
        (aiohttp.ClientConnectorDNSError, "its host name is unknown"),
        (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted"),
        (aiohttp.ClientSSLError, "the TLS handshake failed"),
        (aiohttp.ServerDisconnectedError, "it closed the connection"),
        (aiohttp.ClientPayloadError, "it closed the connection in the middle of its answer"),
        (aiohttp.ClientResponseError, "its answer is not valid HTTP"),
    ]
    for kind, words in kinds:
        if isinstance(error, kind):
            return words
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else "the connection failed"
