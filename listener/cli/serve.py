"""`serve`: the daemon."""

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from listener import logs
from listener.cli import address
from listener.cli.failures import DONE
from listener.config.settings import Settings, load
from listener.journal import Log
from listener.system import System, cleaner

IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that mean something to other daemons, or that a closing terminal sends."""


def serve(arguments: argparse.Namespace) -> int:
    """Run the listener until SIGTERM or SIGINT."""
    _ignore_signals()
    settings = load(address.config_path(arguments))
    write_rest = logs.configure(settings.log.level, settings.log.format, cleaner(settings), background=True)
    try:
        return asyncio.run(_serve(settings))
    finally:
        # Before an error is printed: it would stand among the last lines of the log.
        write_rest()


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
