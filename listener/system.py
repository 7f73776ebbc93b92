"""Builds the whole of it and starts it: daemon, `sync --local` and end-to-end tests start the same object."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from aiohttp import web

from listener import systemd
from listener.config import Settings, tls_context
from listener.directory import Directory
from listener.errors import ConfigurationError, StoreUnavailableError, SyncError
from listener.intake import Intake, Settling
from listener.journal import Cleaner, Remarks
from listener.rollback import Rollbacks
from listener.schedule import Schedule
from listener.ssh import HostPool
from listener.store import open_store
from listener.studio import StudioClient
from listener.sync import Synchronizer
from listener.upkeep import Upkeep
from listener.web import Certificates, Door, Edge, Limits, Ports, application
from listener.worker import Worker


class System:
    """One listener. Enter it to start everything, leave it to drain and stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = structlog.get_logger()
        self.clean = cleaner(settings)
        self.store = open_store(settings.store)
        self.pool = HostPool(
            settings.hosts,
            step_timeout=settings.sync.step_timeout,
            connect_timeout=settings.sync.connect_timeout,
            transfer_timeout=settings.sync.transfer_timeout,
            cache=Path(settings.sync.cache),
        )
        self.studio = _studio(settings)
        self.synchronizer = Synchronizer(
            self.pool,
            quiet=settings.sync.quiet,
            patience=settings.sync.patience,
            studio=self.studio,
        )
        self.directory = Directory(settings.sites, self.pool, time.time, self.log)
        self.worker = Worker(
            self.store,
            settings.sites,
            self.synchronizer,
            concurrency=settings.sync.concurrency,
            per_host=settings.sync.per_host,
            policy=settings.sync.retry,
            clock=time.time,
            log=self.log,
            clean=self.clean,
        )
        settling = Settling(settings.sync.settle, settings.sync.settle_most)
        self.intake = Intake(self.store, settings.sites, settings.hooks, time.time, self.log, settling)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self.edge = Edge(_limits(settings), time.monotonic, self.log)
        self.port = settings.server.port
        """The port that is listened on; the configured one may be 0."""

    async def __aenter__(self) -> Self:
        """Open the store, take up what was left, and start working."""
        await self.store.open()
        for run in await self.store.recover(time.time()):
            self.log.warning("recovered", run=run.id, site=run.site, environment=run.environment)
        self._start("worker", self.worker.work())
        self._start("beat", self.worker.beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, let runs end within the limit, hand the others back, close everything."""
        systemd.notify("STOPPING=1")
        self.log.info("stopping", limit=self.settings.server.drain)
        await self._stop_tasks()
        if self._door is not None:
            self._door.close()
        handed_back = await self.worker.drain(self.settings.server.drain)
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.close()
        await self.store.close()
        self.log.info("stopped", handed_back=handed_back)

    async def close(self) -> None:
        """Close the ways to the hosts and to Studio."""
        await self.pool.close()
        if self.studio is not None:
            await self.studio.close()

    async def listen(self) -> None:
        """Open the HTTP server, warm the hosts up, and tell systemd that the service is ready."""
        server = self.settings.server
        self._runner = web.AppRunner(self._application(), shutdown_timeout=5.0)
        await self._runner.setup()
        self._door = self._opened_door(self._runner)
        try:
            self.port = await self._door.open(server.host, server.port)
        except OSError as error:
            raise ConfigurationError(
                f"server: can't listen on {server.host}:{server.port}: {error.strerror}",
                remedy="choose another server.port, or end what listens there",
            ) from error
        for host in self.settings.hosts:
            self._start(f"warm {host}", self._warm(host))
        self._start("watchdog", self._watchdog())
        schedule = Schedule(
            self.directory,
            self.synchronizer,
            self.intake,
            self.store,
            interval=self.settings.sync.interval,
            clock=time.time,
            log=self.log,
        )
        self._start("schedule", schedule.go_on())
        upkeep = Upkeep(
            self.directory,
            self.pool,
            self.store,
            keep_backups=self.settings.sync.keep_backups,
            age=self.settings.history.age,
            runs=self.settings.history.runs,
            clock=time.time,
            log=self.log,
        )
        self._start("upkeep", upkeep.go_on())
        systemd.notify("READY=1", f"STATUS=listening on {server.host}:{self.port}")
        self.log.info("listening", host=server.host, port=self.port)

    def _opened_door(self, runner: web.AppRunner) -> Door:
        """Return the door of the HTTP server, with TLS where that is configured."""
        if runner.server is None:
            raise ConfigurationError("The HTTP server has not been set up.")
        tls = self.settings.server.tls
        if tls is None:
            return self.edge.door(runner.server, None)
        certificates = Certificates(Path(tls.certificate), Path(tls.key), tls_context, time.time, self.log)
        self._start("certificates", certificates.watch())
        return self.edge.door(runner.server, certificates.context(self.edge.seldom))

    def _application(self) -> web.Application:
        return application(
            Ports(
                intake=self.intake,
                store=self.store,
                sites=self.settings.sites,
                directory=self.directory,
                worker=self.worker,
                synchronizer=self.synchronizer,
                rollbacks=Rollbacks(self.store, self.settings.sites, self.synchronizer, time.time, self.log),
                tokens=self.settings.tokens,
                ready=self.unready,
                stopping=self._stopping,
                clock=time.time,
                log=self.log,
                edge=self.edge,
                wait=self.settings.server.wait,
                concurrency=self.settings.sync.concurrency,
                body_timeout=self.settings.server.body_timeout,
            )
        )

    async def unready(self) -> str:
        """Return why requests can't be taken now; empty when they can."""
        try:
            await self.store.ping()
        except StoreUnavailableError as error:
            return error.message
        return "" if not self._tasks["worker"].done() else "the worker has ended"

    async def _warm(self, host: str) -> None:
        try:
            await self.pool.warm(host, Remarks(self.log, host=host))
        except SyncError as error:
            self.log.warning("host", host=host, error=error.code, message=error.message, remedy=error.remedy)

    async def _watchdog(self) -> None:
        """Tell systemd that the service lives: that the store answers, if only that it can't be written to.

        A full disk or a database that is away heals without a restart, and is not healed by one.
        """
        interval = systemd.watchdog_interval()
        while interval is not None:
            await self.unready()
            if not self._tasks["worker"].done():
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(coroutine, name=name)

    async def _stop_tasks(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        for ended in await asyncio.gather(*self._tasks.values(), return_exceptions=True):
            if isinstance(ended, Exception):
                self.log.error("defect", exc_info=ended)


def _limits(settings: Settings) -> Limits:
    server = settings.server
    return Limits(
        head_timeout=server.head_timeout,
        connections=server.connections,
        refusals=server.refusals,
        unverified_bytes=server.unverified_bytes,
        trusted=server.trusted_proxies,
    )


def _studio(settings: Settings) -> StudioClient | None:
    asked = settings.studio
    if asked is None:
        return None
    return StudioClient(
        asked.url, token=asked.token, management_token=asked.management_token, timeout=asked.timeout
    )


def cleaner(settings: Settings) -> Cleaner:
    """Return what takes the configured secrets out of every line."""
    return Cleaner(secret.decode("utf-8", "replace") for secret in settings.secrets)
