"""The process's log, by structlog: JSON lines, or coloured text on a terminal."""

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from listener.redaction import Cleaner

QUIET_LIBRARIES = ("asyncssh", "aiohttp", "asyncio")
"""Libraries whose lines below WARNING are dropped: asyncssh would log every command line at INFO."""


class BestEffortStream(io.TextIOBase):
    """A text stream that drops what can't be written: a full disk or a closed pipe must not stop a sync."""

    def __init__(self, target: TextIO) -> None:
        self._target = target

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        with contextlib.suppress(OSError):
            return self._target.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the target; ignore errors."""
        with contextlib.suppress(OSError):
            self._target.flush()


def configure(level: str, form: str, clean: Cleaner, target: TextIO | None = None) -> None:
    """Set up structlog, and send the standard library's logging through it.

    `form` is `json`, `console`, or `auto`: console on a terminal, JSON lines elsewhere. The log goes to
    `target`, or to standard error if that is None.
    """
    target = target or sys.stderr
    console = form == "console" or (form == "auto" and target.isatty())
    stream = cast("TextIO", BestEffortStream(target))
    shared: list[Callable[..., Any]] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        _cleaning(clean),
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, _renderer(console=console)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _redirect_standard_logging(number, shared, console=console, stream=stream)


def _cleaning(clean: Cleaner) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    def processor(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        trace = event.pop("exception", None)
        cleaned: EventDict = clean(event)
        if trace is not None:
            cleaned["exception"] = [clean(line) for line in str(trace).splitlines()]
        return cleaned

    return processor


def _renderer(*, console: bool) -> Callable[..., Any]:
    if console:
        return structlog.dev.ConsoleRenderer(
            timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _redirect_standard_logging(
    number: int, shared: list[Callable[..., Any]], *, console: bool, stream: TextIO
) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(console=console),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
