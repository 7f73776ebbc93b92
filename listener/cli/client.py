"""Talking to the running listener over its HTTP API."""

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from listener import __version__
from listener.cli import address
from listener.cli.failures import CredentialRefusedError, ListenerUnreachableError, RefusedByListenerError
from listener.web.protocol import DELIVERY_ID, NDJSON

CONNECT_LIMIT = 5.0
"""Seconds to reach the listener."""
ANSWER_LIMIT = 300.0
"""Seconds for an answer: a look at all sites waits for hosts that do not answer."""
SILENCE_LIMIT = 60.0
"""Seconds without a byte after which a log is given up; the listener breaks each silence after 15."""

RESUMES = 30
"""How often in a row a broken log is taken up again: a listener may be restarting."""
RESUME_PAUSE = 1.0
"""Seconds before each."""

_UNREACHABLE_REMEDY = (
    "start it with sync-staging serve, or name another address with --url; sync --local needs none"
)

_CERTIFICATE_REMEDY = (
    "name the certificate, or those that signed it, with --ca, and the address by the name that stands in "
    "it; one that was just renewed is shown within 10 s"
)

_TOO_OFTEN = "The token, or what it asked for, is refused, as too much that came from this address was."
_TOO_OFTEN_REMEDY = (
    "check the token: a good one is let in all the same; a minute later the listener says again what is wrong"
)

_QUICK = aiohttp.ClientTimeout(total=ANSWER_LIMIT, sock_connect=CONNECT_LIMIT)
_LASTING = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT, sock_read=SILENCE_LIMIT)


def path(*steps: str) -> str:
    """Return a path of the API, its steps quoted."""
    return "/api/v1/" + "/".join(quote(step, safe="") for step in steps)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a listener answered to raw bytes."""

    status: int
    phrase: str
    body: bytes
    refusal: str
    """The id under which a refused request is on record; empty for another."""


class Client:
    """One listener, as seen from outside."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def get(self, where: str, **query: Any) -> dict[str, Any]:
        """Return the document there. Query values that are None are left out."""
        return await self._document("GET", where, params=_given(query))

    async def post(self, where: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send an object, or nothing, and return the answered document."""
        return await self._document("POST", where, json=body)

    async def send(self, where: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send raw bytes; return the answer, whatever it is."""
        async with self._asking("POST", where, data=body, headers=headers, timeout=_QUICK) as response:
            refusal = response.headers.get(DELIVERY_ID, "")
            return Answer(response.status, response.reason or "", await response.read(), refusal)

    async def log(self, run: str, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the lines of a run's log, to its end with `follow`, resuming where a connection broke."""
        # Lines are numbered 1, 2, 3, … without holes: to count them is to know their numbers.
        after, broken, reached = 0, 0, False
        while True:
            query = {"after": str(after), "follow": "true" if follow else "false"}
            try:
                async with self._asking(
                    "GET", path("runs", run, "log"), params=query, timeout=_LASTING
                ) as log:
                    await _checked(log)
                    if log.content_type != NDJSON:
                        raise _no_listener(log)
                    reached, lines = True, _Lines()
                    async for chunk in log.content.iter_any():
                        for line in lines.whole(chunk):
                            after, broken = after + 1, 0
                            yield line
            except ListenerUnreachableError:
                broken += 1
                if not reached or broken > RESUMES:
                    raise
                await asyncio.sleep(RESUME_PAUSE)
            else:
                return

    async def _document(self, method: str, where: str, **request: Any) -> dict[str, Any]:
        async with self._asking(method, where, timeout=_QUICK, **request) as response:
            await _checked(response)
            return await _read_object(response)

    @contextlib.asynccontextmanager
    async def _asking(self, method: str, where: str, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the listener; turn what the network raises into `ListenerUnreachableError`."""
        try:
            async with self._session.request(
                method, URL(self._url + where, encoded=True), allow_redirects=False, **request
            ) as response:
                yield response
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch) as error:
            raise ListenerUnreachableError(
                f"The certificate that is shown at {self._url} is not one to trust.",
                remedy=_CERTIFICATE_REMEDY,
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ListenerUnreachableError(
                f"The listener at {self._url} does not answer: {_cause(error)}.", remedy=_UNREACHABLE_REMEDY
            ) from error


@contextlib.asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncIterator[Client]:
    """Lend a client for the listener that the command line names, with the caller's token."""
    url = address.url(arguments)
    headers = {"Authorization": f"Bearer {address.token(arguments)}"}
    async with opened(url, headers, address.trust(arguments)) as client:
        yield client


@contextlib.asynccontextmanager
async def opened(
    url: str, headers: Mapping[str, str], trust: ssl.SSLContext | aiohttp.Fingerprint | bool
) -> AsyncIterator[Client]:
    """Lend a client that sends these headers with every request, and knows an https listener by `trust`."""
    async with aiohttp.ClientSession(
        headers={"User-Agent": f"sync-staging/{__version__}", **headers},
        connector=aiohttp.TCPConnector(ssl=trust),
        trust_env=not _loopback(urlsplit(url).hostname or ""),
    ) as session:
        yield Client(url, session)


async def _checked(response: aiohttp.ClientResponse) -> None:
    """Raise the error that an answer tells of, if it does."""
    if response.status == 401:  # noqa: PLR2004 (Unauthorized)
        raise CredentialRefusedError
    if response.status == 429:  # noqa: PLR2004 (Too Many Requests)
        raise CredentialRefusedError(_TOO_OFTEN, remedy=_TOO_OFTEN_REMEDY)
    if not 200 <= response.status < 300:  # noqa: PLR2004 (the successes)
        raise RefusedByListenerError.of(f"{response.status} {response.reason}", await _read_object(response))


async def _read_object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        value = json.loads(await response.read())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _no_listener(response)
    return value


def _no_listener(response: aiohttp.ClientResponse) -> ListenerUnreachableError:
    return ListenerUnreachableError(
        f"What answers at {response.url.origin()} is no listener: {response.status} {response.reason}.",
        remedy="name the listener's address with --url",
    )


class _Lines:
    """Takes the lines out of a stream, however long they are; empty ones carry no meaning."""

    def __init__(self) -> None:
        self._rest = b""

    def whole(self, chunk: bytes) -> list[str]:
        """Return the lines that are whole with this chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode("utf-8", "backslashreplace") for line in lines if line]


def _given(query: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "it speaks no TLS that fits"
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(error) or "connection lost"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
