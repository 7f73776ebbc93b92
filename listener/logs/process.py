"""The process's log: JSON lines, or coloured text on a terminal."""

import contextlib
import io
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from listener.logs import journald
from listener.redaction import Cleaner

QUIET_LIBRARIES = ("asyncssh", "aiohttp", "asyncio")
"""Libraries whose lines below WARNING are dropped: asyncssh logs every command line at INFO."""

WAITING_MOST = 20_000
"""Lines that wait to be written. Further lines are dropped and counted."""

TOGETHER = 0.01
"""Seconds in which the thread collects lines before it writes them: each write is a system call."""


class BestEffortStream(io.TextIOBase):
    """A text stream that drops what it can't write: a full disk or a closed pipe must not stop a sync."""

    def __init__(self, target: TextIO) -> None:
        self._target = target

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        with contextlib.suppress(OSError):
            return self._target.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the target, if possible."""
        with contextlib.suppress(OSError):
            self._target.flush()


class BackgroundStream(io.TextIOBase):
    """A text stream that a thread writes, in the order of the calls: a slow target delays nobody.

    `close` writes all waiting lines. A process that is killed loses the lines of the last milliseconds.
    """

    def __init__(self, target: TextIO, dropped: Callable[[int], str], most: int = WAITING_MOST) -> None:
        """Write to `target`; `dropped` returns the line that counts lost ones."""
        self._target = target
        self._dropped_line = dropped
        self._most = most
        self._lines: deque[str | Callable[[], str]] = deque()
        self._dropped = 0
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue text. After `close` there is no thread: write it at once."""
        self.later(text)
        return len(text)

    def later(self, line: str | Callable[[], str]) -> None:
        """Queue a line, or a function that the thread calls to render it."""
        if self._closing:
            self._target.write(_rendered(line))
        elif len(self._lines) >= self._most:
            self._dropped += 1
        else:
            self._lines.append(line)
            if not self._wake.is_set():
                self._wake.set()

    def flush(self) -> None:
        """Do nothing: the thread writes soon."""

    def close(self) -> None:
        """Write all waiting lines, for at most 5 s."""
        self._closing = True
        self._wake.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait()
            # While lines come, writers do not wake the thread: each wake-up would cost them the GIL.
            while self._lines and not self._closing:
                time.sleep(TOGETHER)
                self._write_all()
            self._wake.clear()
            # A line that came just before the event was cleared did not wake the thread.
            if self._lines or self._closing:
                self._wake.set()
        self._write_all()

    def _write_all(self) -> None:
        batch = [_rendered(self._lines.popleft()) for _ in range(len(self._lines))]
        if self._dropped:
            batch.append(self._dropped_line(self._dropped))
            self._dropped = 0
        with contextlib.suppress(ValueError):  # The target is closed.
            self._target.write("".join(batch))
            self._target.flush()


def _rendered(line: str | Callable[[], str]) -> str:
    return line if isinstance(line, str) else line()


_LASTING = frozenset({str, int, float, bool, type(None), tuple})
"""The types of facts that can't change before a thread renders them."""


class JsonLog:
    """Writes each event as a line of JSON. Implements `listener.journal.Log`.

    structlog's chain of processors costs ten times as much, and each acknowledgement writes two lines. In the
    background, the thread also renders the lines, many in a row: that costs half as much as one at a time.
    """

    def __init__(self, least: int, clean: Cleaner, stream: TextIO) -> None:
        """Write events from the level `least` on."""
        self._least = least
        self._clean = clean
        self._write = stream.write
        self._later = stream.later if isinstance(stream, BackgroundStream) else None

    def debug(self, event: str, **facts: Any) -> None:
        """Write one event."""
        if self._least <= logging.DEBUG:
            self._log("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """Write one event."""
        if self._least <= logging.INFO:
            self._log("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Write one event."""
        if self._least <= logging.WARNING:
            self._log("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """Write one event."""
        self._log("error", event, facts)

    def _log(self, level: str, event: str, facts: dict[str, Any]) -> None:
        if self._later is not None and _LASTING.issuperset(map(type, facts.values())):
            self._later(partial(self.line, level, event, facts, time.time()))
        else:
            self._write(self.line(level, event, facts, time.time()))

    def line(self, level: str, event: str, facts: dict[str, Any], now: float) -> str:
        """Return an event as a line; an exception in `exc_info` becomes the lines of its traceback."""
        error = facts.pop("exc_info", None)
        if error is not None:
            facts["exception"] = "".join(traceback.format_exception(error)).splitlines()
        at = f"{datetime.fromtimestamp(now, UTC).isoformat()[:-6]}Z"
        return f"{self._clean.json({**facts, 'event': event, 'level': level, 'at': at})}\n"


def configure(
    level: str, form: str, clean: Cleaner, target: TextIO | None = None, *, background: bool = False
) -> Callable[[], None]:
    """Set up structlog, and send the standard library's logging through it.

    `form` is `json`, `console`, or `auto`: console on a terminal, JSON lines elsewhere. The log goes to
    `target`, by default standard error; if that is systemd's journal, each line has its priority there.
    In the `background`, a thread writes it; call the returned function to write the lines that still wait.
    """
    target = target or sys.stderr
    console, journal = is_text(form, target), journald.is_stderr(target)
    number = logging.getLevelNamesMapping()[level.upper()]
    stream = cast("TextIO", BestEffortStream(target))
    if journal and not console:
        stream = cast("TextIO", journald.JournalStream(stream))
    finish = stream.flush
    if background:
        thread = _in_background(stream, clean)
        stream, finish = cast("TextIO", thread), thread.close
    shared: list[Callable[..., Any]] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        _cleaning(clean),
    ]
    render = _text_renderer(prefixed=journal) if console else _JSON
    if console:
        _log_text(number, [*shared, render], stream)
    else:
        _log_json(number, clean, stream)
    _redirect_standard_logging(number, shared, render, stream)
    return finish


def is_text(form: str, target: TextIO | None = None) -> bool:
    """Return whether `configure` writes text for people, not JSON, in this form."""
    return form == "console" or (form == "auto" and (target or sys.stderr).isatty())


def _log_text(number: int, processors: list[Callable[..., Any]], stream: TextIO) -> None:
    """Let structlog write coloured text."""
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _log_json(number: int, clean: Cleaner, stream: TextIO) -> None:
    """Let structlog's loggers be a `JsonLog`, without processors or a context of their own."""
    log = JsonLog(number, clean, stream)
    structlog.configure(
        wrapper_class=cast("type[Any]", lambda *_, **__: log),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def _in_background(stream: TextIO, clean: Cleaner) -> BackgroundStream:
    def dropped(count: int) -> str:
        return JsonLog(logging.WARNING, clean, stream).line("warning", "log", {"dropped": count}, time.time())

    return BackgroundStream(stream, dropped)


def _cleaning(clean: Cleaner) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    def processor(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        trace = event.pop("exception", None)
        cleaned: EventDict = clean(event)
        if trace is not None:
            cleaned["exception"] = [clean(line) for line in str(trace).splitlines()]
        return cleaned

    return processor


_JSON = structlog.processors.JSONRenderer(ensure_ascii=False)


def _text_renderer(*, prefixed: bool) -> Callable[[WrappedLogger, str, EventDict], str]:
    """Return the renderer of text for people; `prefixed` with the priority, for the journal."""
    render = structlog.dev.ConsoleRenderer(
        timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> str:
        level = str(event.get("level", "info"))
        text = render(logger, method, event)
        return journald.prefixed(text, level).removesuffix("\n") if prefixed else text

    return rendered


def _redirect_standard_logging(
    number: int, shared: list[Callable[..., Any]], render: Callable[..., Any], stream: TextIO
) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render,
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
