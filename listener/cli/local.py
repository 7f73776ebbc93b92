"""`sync --local`: a sync in this process, without a listener."""

import argparse
import asyncio
import contextlib
import os
import pwd
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import structlog

from listener import follow, logs
from listener.cli import address, wording
from listener.cli.printing import note
from listener.config.settings import Settings, load
from listener.errors import StoreLockedError
from listener.journal import Log, Remarks
from listener.runs import Asker, Origin, State
from listener.sites import Environment
from listener.sync import Look
from listener.system import System, cleaner
from listener.web.answers.runs import RunView
from listener.web.answers.sites import drift_of

RUN_FACTS = {"run", "site", "environment", "host"}
"""The facts of every line of a run."""


class LogWithoutRuns:
    """A log without the lines of runs, which are printed already. Implements `listener.journal.Log`."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def debug(self, event: str, **facts: Any) -> None:
        """Write one event."""
        self._write(self._log.debug, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """Write one event."""
        self._write(self._log.info, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Write one event."""
        self._write(self._log.warning, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """Write one event."""
        self._write(self._log.error, event, facts)

    def _write(self, write: Callable[..., Any], event: str, facts: Mapping[str, Any]) -> None:
        if not facts.keys() >= RUN_FACTS:
            write(event, **facts)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Load the configuration; send warnings and errors of the process's log to standard error."""
    settings = load(address.config_path(arguments))
    logs.configure("warning", settings.log.format, cleaner(settings))
    log = LogWithoutRuns(structlog.get_logger().bind())
    structlog.configure(wrapper_class=cast("type[Any]", lambda *_, **__: log))
    return settings


def synced(arguments: argparse.Namespace) -> dict[str, Any]:
    """Sync an environment, or do the dry run that the command line asks for."""
    settings = settings_of(arguments)
    environment = settings.sites.environment(arguments.site, arguments.environment)
    return asyncio.run((look if arguments.dry_run else sync)(settings, environment))


async def look(settings: Settings, environment: Environment) -> dict[str, Any]:
    """Return what a sync would do now; raise `SyncError`."""
    async with without_store(settings) as system:
        looks = await look_with(system, environment)
    if len(looks) == 1 and looks[0].error is not None:
        raise looks[0].error
    return drift_of([look.found for look in looks]).model_dump(mode="json")


async def look_with(system: System, environment: Environment) -> list[Look]:
    """Return how each leg of an environment stands."""
    remarks = Remarks(
        system.log, site=environment.site, environment=environment.name, host=",".join(environment.hosts)
    )
    return await system.synchronizer.look(environment, remarks)


@contextlib.asynccontextmanager
async def without_store(settings: Settings) -> AsyncIterator[System]:
    """Lend a system whose store stays closed. It can look at repositories while a listener is running."""
    system = System(settings)
    try:
        yield system
    finally:
        await system.close()


async def sync(settings: Settings, environment: Environment) -> dict[str, Any]:
    """Sync, print the log as it grows, and return the run."""
    system = System(settings)
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(system)
        except StoreLockedError as error:
            raise StoreLockedError(
                error.message, remedy="leave out --local: the running listener can do the sync"
            ) from error
        user = _system_user()
        asker = Asker(user, f"system user {user}")
        acceptance = await system.intake.request(environment, Origin.CLI, asker)
        return await _served(system, acceptance.triggers[0])


async def _served(system: System, trigger: str) -> dict[str, Any]:
    """Print the log of the run that serves the trigger, and of its successors; return the last run."""
    while True:
        run = await system.store.serving(trigger)
        async with contextlib.aclosing(follow.lines(system.store, run.id)) as lines:
            async for line in lines:
                note(wording.log_line(line.text))
        run = await system.store.run(run.id)
        if run.state is not State.SUPERSEDED:
            return RunView.of(run, await system.store.triggers(run.id)).model_dump(mode="json")


def _system_user() -> str:
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
