"""`serve`: the daemon."""

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from listener import logs
from listener.cli import address
from listener.cli.failures import DONE, FAILED, exit_status
from listener.config.settings import Settings, load
from listener.errors import ListenerError
from listener.journal import Log
from listener.redaction import Cleaner
from listener.system import System, cleaner

IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that mean something to other daemons, or that a closing terminal sends."""


def serve(arguments: argparse.Namespace) -> int:
    """Run the listener until SIGTERM or SIGINT."""
    _ignore_signals()
    # For errors before the settings are known.
    logs.configure("error", form := "auto", Cleaner())
    write_rest = None
    try:
        settings = load(address.config_path(arguments))
        form = settings.log.format
        write_rest = logs.configure(settings.log.level, form, cleaner(settings), background=True)
        return asyncio.run(_serve(settings))
    except Exception as error:
        if logs.is_text(form):
            raise
        return _last_words(structlog.get_logger(), error)
    finally:
        # Before an error is printed: it would stand among the last lines of the log.
        if write_rest is not None:
            write_rest()


def _last_words(log: Log, error: Exception) -> int:
    """Log why the listener ends, as a line of its log; return the exit status."""
    if not isinstance(error, ListenerError):
        log.error("serve", exc_info=error)
        return FAILED
    log.error("serve", error=error.code, message=error.message, remedy=error.remedy)
    return exit_status(error)


async def _serve(settings: Settings) -> int:
    system = System(settings)
    with _logging_ignored(system.log):
        stopping, handing_back = _on_signals(system)
        async with system:
            _log_warnings(system, settings)
            await system.listen()
            await stopping.wait()
        await asyncio.gather(*handing_back)
    return DONE


def _ignore_signals() -> None:
    """Ignore signals that mean nothing to the listener: by default they would end it."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _logging_ignored(log: Log) -> Iterator[None]:
    """Log each ignored signal.

    asyncio's own handlers end with the loop: a signal after that would end the process with a failure.
    """
    loop = asyncio.get_running_loop()

    def log_signal(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(partial(log.warning, "signal ignored", signal=signal.Signals(number).name))

    for number in IGNORED:
        signal.signal(number, log_signal)
    try:
        yield
    finally:
        _ignore_signals()


def _log_warnings(system: System, settings: Settings) -> None:
    for warning in settings.warnings:
        system.log.warning("configuration", warning=warning)


def _on_signals(system: System) -> tuple[asyncio.Event, list[asyncio.Task[int]]]:
    """Return the event that the first signal sets, and the tasks that the second one starts.

    The second signal hands running syncs back to the queue at once. The third one kills the process.
    """
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    handing_back: list[asyncio.Task[int]] = []

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            return
        handing_back.append(loop.create_task(system.worker.drain(0)))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping, handing_back
