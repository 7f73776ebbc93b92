"""Talking to the running listener over its HTTP API."""

import argparse
import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from listener.cli import address
from listener.cli.failures import CredentialRefusedError, ListenerUnreachableError, RefusedByListenerError
from listener.cli.transport import Transport
from listener.web.protocol import DELIVERY_ID, EVENTS, NDJSON, PAGE_MOST

ANSWER_LIMIT = 300.0
"""Seconds without a byte of an answer: a look at all sites waits for hosts that do not answer."""
SILENCE_LIMIT = 60.0
"""Seconds without a byte of a log; the listener breaks each silence after 15."""

RESUMES = 30
"""How often in a row a broken log is resumed: a listener may be restarting."""
RESUME_PAUSE = 1.0
"""Seconds before each."""

_TOO_OFTEN = "The listener refuses the token, or its address: too many requests from here were refused."
_TOO_OFTEN_REMEDY = (
    "check the token: a good one is let in all the same; a minute later the listener says again what is wrong"
)


def path(*steps: str) -> str:
    """Return a path of the API, its steps quoted."""
    return "/api/v1/" + "/".join(quote(step, safe="") for step in steps)


class Answer(NamedTuple):
    """What a listener answered to raw bytes."""

    status: int
    phrase: str
    body: bytes
    refusal: str
    """The id under which a refused request is on record; empty for another."""


class Client:
    """One listener, as seen from outside."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, where: str, **query: Any) -> dict[str, Any]:
        """Return the document there. Query values that are None are left out."""
        return self._document("GET", where + _query(query))

    def pages(self, where: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list, to its last one."""
        after = None
        while True:
            page = self.get(where, **{"limit": PAGE_MOST, **query, "after": after})
            yield page
            after = page.get("next")
            if after is None:
                return

    def post(self, where: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send an object, or nothing, and return the answered document."""
        if body is None:
            return self._document("POST", where)
        return self._document("POST", where, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def send(self, where: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send raw bytes; return the answer, an error too."""
        with self._transport.request("POST", where, body, headers, ANSWER_LIMIT) as response:
            refusal = response.getheader(DELIVERY_ID, "")
            return Answer(response.status, response.reason, response.read(), refusal)

    def log(self, run: str, *, follow: bool) -> Iterator[str]:
        """Yield the lines of a run's log, to its end with `follow`; resume it where a connection broke."""
        # Lines are numbered 1, 2, 3, … without holes: to count them is to know their numbers.
        after, broken, reached = 0, 0, False
        while True:
            try:
                with self._log(run, after, follow=follow) as response:
                    reached = True
                    for line in _lines(response):
                        after, broken = after + 1, 0
                        yield line
            except ListenerUnreachableError:
                broken += 1
                if not reached or broken > RESUMES:
                    raise
                time.sleep(RESUME_PAUSE)
            else:
                return

    @contextlib.contextmanager
    def _log(self, run: str, after: int, *, follow: bool) -> Iterator[http.client.HTTPResponse]:
        query = _query({"after": after, "follow": "true" if follow else "false"})
        where = path("runs", run, "log") + query
        with self._transport.request("GET", where, None, {}, SILENCE_LIMIT) as response:
            self._check(response)
            if response.headers.get_content_type() != NDJSON:
                raise self._not_a_listener(response)
            yield response

    def events(
        self,
        query: Sequence[tuple[str, str]],
        after: str | None,
        *,
        follow: bool,
        on_break: Callable[[str], None],
    ) -> Iterator[str]:
        """Yield events, each a JSON object. After a break, connect until the listener answers again.

        `on_break` is called once for each break, with a message. No event is lost.
        """
        # Server-sent events have an id even while nothing happens: from there the stream goes on.
        reached = broken = False
        while True:
            try:
                where = path("events") + _pairs(query, after, follow=follow)
                with self._events(where) as response:
                    reached, broken = True, False
                    for name, text in _fields(response):
                        if name == "id":
                            after = text
                        elif name == "data" and (reason := _ended(text)):
                            break
                        elif name == "data":
                            yield text
                    else:
                        reason = ""
                if reason == "done":
                    return
            except ListenerUnreachableError as error:
                if not (reached and follow):
                    raise
                if not broken:
                    on_break(f"{error.message} Trying again until the listener answers.")
                broken = True
            time.sleep(RESUME_PAUSE)

    @contextlib.contextmanager
    def _events(self, where: str) -> Iterator[http.client.HTTPResponse]:
        with self._transport.request("GET", where, None, {"Accept": EVENTS}, SILENCE_LIMIT) as response:
            if response.status == 503:  # noqa: PLR2004 (Service Unavailable)
                raise ListenerUnreachableError(f"{self._transport.origin} answers {response.reason}.")
            self._check(response)
            if response.headers.get_content_type() != EVENTS:
                raise self._not_a_listener(response)
            yield response

    def _document(
        self, method: str, where: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        with self._transport.request(method, where, body, headers or {}, ANSWER_LIMIT) as response:
            self._check(response)
            return self._object(response)

    def _check(self, response: http.client.HTTPResponse) -> None:
        """Raise the error that an answer reports, if it does."""
        if response.status == 401:  # noqa: PLR2004 (Unauthorized)
            raise CredentialRefusedError
        if response.status == 429:  # noqa: PLR2004 (Too Many Requests)
            raise CredentialRefusedError(_TOO_OFTEN, remedy=_TOO_OFTEN_REMEDY)
        if not 200 <= response.status < 300:  # noqa: PLR2004 (the successes)
            raise RefusedByListenerError.of(f"{response.status} {response.reason}", self._object(response))

    def _object(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        try:
            value = json.loads(response.read())
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self._not_a_listener(response)
        return value

    def _not_a_listener(self, response: http.client.HTTPResponse) -> ListenerUnreachableError:
        return ListenerUnreachableError(
            f"{self._transport.origin} is not a listener: it answers {response.status} {response.reason}.",
            remedy="name the listener's address with --url",
        )


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """Yield the lines of a stream, however long they are; empty ones only show that the connection lives."""
    rest = b""
    while chunk := response.read1(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode("utf-8", "backslashreplace") for line in lines if line)


def _fields(response: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """Yield the fields of server-sent events."""
    for line in _lines(response):
        name, _, text = line.partition(":")
        yield name, text.removeprefix(" ")


def _ended(text: str) -> str:
    """Return why a stream of events ends if this is its last event; else an empty text."""
    event = json.loads(text)
    return str(event["reason"]) if event["kind"] == "end" else ""


def _pairs(query: Sequence[tuple[str, str]], after: str | None, *, follow: bool) -> str:
    """Return the query of a stream. With `after`, the time `since` is left out."""
    pairs = [(name, value) for name, value in query if name != "since" or after is None]
    if after is not None:
        pairs.append(("after", after))
    return f"?{urlencode([*pairs, ('follow', 'true' if follow else 'false')])}"


def _query(values: Mapping[str, Any]) -> str:
    given = {name: str(value) for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def connected(arguments: argparse.Namespace) -> Client:
    """Return a client for the listener that the command line names, with the caller's token."""
    listener = address.listener(arguments)
    return opened(listener, {"Authorization": f"Bearer {address.token(arguments)}"})


def opened(listener: address.Listener, headers: Mapping[str, str]) -> Client:
    """Return a client that sends these headers with every request."""
    return Client(Transport(listener.url, headers, listener.trust))
