"""`serve`: the daemon."""

import argparse
import asyncio
import signal

from listener import config, logs
from listener.cli import address
from listener.cli.failures import DONE
from listener.cli.options import WRONG_USAGE, Commands, add_command, add_config
from listener.config import Settings
from listener.system import System, cleaner


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "serve",
        serve,
        summary="run the listener until SIGTERM or SIGINT",
        example="sync-staging serve --config /etc/sync-staging/listener.yaml",
        done="stopped as asked: running syncs have ended or went back to the queue",
        failed="the configuration is invalid, the port is taken, or another listener has the store open",
        misused=WRONG_USAGE,
    )
    add_config(parser)


async def serve(arguments: argparse.Namespace) -> int:
    """Run the listener until it is told to stop."""
    settings = config.load(address.config_path(arguments))
    logs.configure(settings.log.level, settings.log.format, cleaner(settings))
    system = System(settings)
    stopping = _on_signals(system)
    async with system:
        _warn(system, settings)
        await system.listen()
        await stopping.wait()
    return DONE


def _warn(system: System, settings: Settings) -> None:
    for warning in settings.warnings:
        system.log.log(30, "configuration", warning=warning)


def _on_signals(system: System) -> asyncio.Event:
    """Return what the first signal sets. The second one hands running syncs back, the third one kills."""
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
    return stopping
