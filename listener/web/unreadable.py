"""What is logged of a request that is no HTTP: that there was one; its line may hold a secret."""

import logging

from aiohttp.http_exceptions import HttpProcessingError


class _WithoutTheLine(logging.Filter):
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
