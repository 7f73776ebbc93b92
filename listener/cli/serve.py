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

UNUSED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that other daemons take for something, and that a terminal sends when it is closed."""


def serve(arguments: argparse.Namespace) -> int:
    """Run the listener until it is told to stop."""
    _ignore_unused()
    return asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    settings = load(address.config_path(arguments))
    logs.configure(settings.log.level, settings.log.format, cleaner(settings), background=True)
    system = System(settings)
    with _telling_unused(system.log):
        stopping, hurrying = _on_signals(system)
        async with system:
            _warn(system, settings)
            await system.listen()
            await stopping.wait()
        await asyncio.gather(*hurrying)
    return DONE


def _ignore_unused() -> None:
    """Let signals that mean nothing to the listener not end it, from its first moment to its last one."""
    for number in UNUSED:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _telling_unused(log: Log) -> Iterator[None]:
    """Log each of them. asyncio's own handlers would end with the loop, a moment before the process does."""
    loop = asyncio.get_running_loop()

    def tell(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(partial(log.warning, "signal ignored", signal=signal.Signals(number).name))

    for number in UNUSED:
        signal.signal(number, tell)
    try:
        yield
    finally:
        _ignore_unused()


def _warn(system: System, settings: Settings) -> None:
    for warning in settings.warnings:
        system.log.warning("configuration", warning=warning)


def _on_signals(system: System) -> tuple[asyncio.Event, list[asyncio.Task[int]]]:
    """Return what the first signal sets, and what the second one starts: handing running syncs back.

    The third one kills.
    """
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    hurrying: list[asyncio.Task[int]] = []

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            return
        hurrying.append(loop.create_task(system.worker.drain(0)))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping, hurrying
