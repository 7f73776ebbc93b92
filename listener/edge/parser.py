"""aiohttp's parser, up to the first error of a connection.

Left to itself, aiohttp makes an error of each chunk that arrives after what is not HTTP. Each waits, behind
the answers that the client does not read, with a traceback that keeps its chunk: gigabytes in seconds. Here
the first error is the last, it was never raised, so that it has no traceback, and it quotes nothing.
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


class Parser:
    """Parses requests until what arrives is not HTTP. Does what aiohttp's protocol asks of its parser."""

    def __init__(self, parser: Any, broken: Callable[[str], None]) -> None:
        """Call `broken` with the kind of the first error."""
        self._parser = parser
        self._tell = broken
        self.broken = False
        self.payload: StreamReader = EMPTY_PAYLOAD
        """The body of the request that was read last, whole or not."""
        self.pause_reading = parser.pause_reading
        self.message_consumed = parser.message_consumed
        self.set_upgraded = parser.set_upgraded

    def feed_data(self, data: bytes) -> Fed:
        """Return the requests that are whole now; after the first error, nothing."""
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
        # Somebody waits for this body, or drops the rest of it: neither will ever have all of it. It ends,
        # and whoever reads it is told why, for a body that is cut short must not pass for a whole one.
        self.payload.set_exception(RequestPayloadError(kind))
        self.payload.feed_eof()
        return NOTHING


class _WithoutTheLine(logging.Filter):
    """What is logged of a request that is not HTTP: that there was one. Its line may hold a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            # The error's text, and the code that is shown with it, quote what has arrived.
            record.exc_info = None
            record.msg = f"{record.msg}: {type(error).__name__}"
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def server_log() -> logging.Logger:
    """Return the logger that aiohttp's server shall write to."""
    logger = logging.getLogger("aiohttp.server")
    if not any(isinstance(each, _WithoutTheLine) for each in logger.filters):
        logger.addFilter(_WithoutTheLine())
    return logger
