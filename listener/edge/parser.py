"""aiohttp's parser, which stops at the first error of a connection.

aiohttp makes an error of each chunk that arrives after invalid HTTP. Each error waits behind answers that the
client does not read, and its traceback keeps the chunk: gigabytes in seconds. Here the first error is the
last. It is never raised, so it has no traceback, and it quotes nothing.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import StreamReader
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestPayloadError, _ErrInfo

Fed = tuple[Sequence[tuple[Any, StreamReader]], bool, bytes]

NOTHING: Fed = ((), False, b"")


class FailFastParser:
    """Parses requests up to the first invalid one. Implements what aiohttp's protocol needs of a parser."""

    def __init__(self, parser: Any, broken: Callable[[str], None]) -> None:
        """Call `broken` with the kind of the first error."""
        self._parser = parser
        self._tell = broken
        self.broken = False
        self.payload: StreamReader = EMPTY_PAYLOAD
        """The body of the last request, complete or not."""
        self.pause_reading = parser.pause_reading
        self.message_consumed = parser.message_consumed
        self.set_upgraded = parser.set_upgraded

    def feed_data(self, data: bytes) -> Fed:
        """Return the requests that are complete now; nothing after the first error."""
        if self.broken:
            return NOTHING
        try:
            fed: Fed = self._parser.feed_data(data)
        except HttpProcessingError as error:
            kind = type(error).__name__
        else:
            if fed[0]:
                self.payload = fed[0][-1][1]
            return fed
        return self._break_off(kind)

    def _break_off(self, kind: str) -> Fed:
        self.broken = True
        self._tell(kind)
        if self.payload.is_eof():
            error = _ErrInfo(status=400, exc=HttpProcessingError(message=kind), message=kind)
            return [(error, EMPTY_PAYLOAD)], False, b""
        # A handler may wait for the rest of this body, which will never come. The body ends with an error, so
        # that it is not mistaken for a complete one.
        self.payload.set_exception(RequestPayloadError(kind))
        self.payload.feed_eof()
        return NOTHING


class _WithoutRequestLine(logging.Filter):
    """Keeps invalid requests out of the log: their first line may hold a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            # The error's text and traceback quote the request.
            record.exc_info = None
            record.msg = f"{record.msg}: {type(error).__name__}"
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def server_log() -> logging.Logger:
    """Return the logger of aiohttp's server."""
    logger = logging.getLogger("aiohttp.server")
    if not any(isinstance(each, _WithoutRequestLine) for each in logger.filters):
        logger.addFilter(_WithoutRequestLine())
    return logger
