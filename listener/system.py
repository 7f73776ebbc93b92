"""Builds the whole of it and starts it: daemon, `sync --local` and end-to-end tests start the same object."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from listener import metrics
from listener.audit import Audit
from listener.config.files import tls_context
from listener.config.settings import Settings
from listener.directory import Directory
from listener.edge import Acceptor, Certificates, ConnectionBudget, Edge, Limits, places
from listener.errors import ConfigurationError, StoreError, StoreUnavailableError, SyncError
from listener.intake import Intake, Settling
from listener.journal import Remarks
from listener.metrics import Metrics
from listener.redaction import Cleaner
from listener.rollback import Rollbacks
from listener.schedule import Schedule
from listener.ssh import HostPool
from listener.store import open_store
from listener.studio import StudioCallers, StudioClient
from listener.supervision import Supervisor
from listener.sync import Synchronizer
from listener.systemd import ServiceManager
from listener.upkeep import Upkeep
from listener.web.app import Ports, application
from listener.web.replies import add_headers, private_problem
from listener.worker import Worker

VITAL = frozenset({"worker", "beat"})
"""The tasks that each sync needs: while one of them fails again and again, the watchdog is not fed."""


class System:
    """One listener. Enter it to start everything, leave it to drain and stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.sites, settings.hooks, time.time, settings.history.deliveries)
        self.log = self.metrics.counting(structlog.get_logger())
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
        self.studio_callers = _studio_callers(settings)
        self.synchronizer = Synchronizer(
            self.pool,
            quiet=settings.sync.quiet,
            patience=settings.sync.patience,
            studio=self.studio,
        )
        self.metrics.watch(self.synchronizer.waits.overdue)
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
        self.audit = Audit(self.store, time.time, self.log, self.clean)
        self.intake = Intake(
            self.store, settings.sites, settings.hooks, time.time, self.log, self.audit, settling
        )
        self.tasks = Supervisor(self.log)
        self.manager = ServiceManager(self.log)
        self._stopping = asyncio.Event()
        self._runners: list[web.AppRunner] = []
        self._acceptors: list[Acceptor] = []
        self._places = places(settings.server.connections, len(settings.hosts), settings.sync.concurrency)
        self.edge = Edge(_limits(settings, self._places), time.monotonic, self.log, private_problem)
        self.port = settings.server.port
        """The port that is listened on; the configured one may be 0."""
        self.metrics_port: int | None = None
        """The port on which the figures are told; None where they are not."""

    async def __aenter__(self) -> Self:
        """Open the store, take up what was left, and start working."""
        await self.store.open()
        for run in await self.store.recover(time.time()):
            self.log.warning("recovered", run=run.id, site=run.site, environment=run.environment)
        self.tasks.start("worker", self.worker.work)
        self.tasks.start("beat", self.worker.beat)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, let runs end within the limit, hand the others back, close everything."""
        self.manager.notify("STOPPING=1")
        self.log.info("stopping", limit=self.settings.server.drain)
        # The runs that are drained are this listener's for as long as it says so.
        await self.tasks.stop(but={"beat"})
        for acceptor in self._acceptors:
            acceptor.close()
        handed_back = await self.worker.drain(self.settings.server.drain)
        await self.tasks.stop()
        self._stopping.set()
        for runner in self._runners:
            await runner.cleanup()
        await self.close()
        with suppress(StoreError):
            await self.audit.flush()
        await self.store.close()
        self.log.info("stopped", handed_back=handed_back)

    async def close(self) -> None:
        """Close the ways to the hosts and to Studio."""
        await self.pool.close()
        for asking in (self.studio, self.studio_callers):
            if asking is not None:
                await asking.close()

    async def listen(self) -> None:
        """Open the HTTP server, warm the hosts up, and tell systemd that the service is ready."""
        server = self.settings.server
        self._tell_places()
        self.port = await self._open(server.host, server.port)
        address = self.settings.metrics.address
        if address is not None:
            told = metrics.application(self.metrics, self.store)
            self.metrics_port = await self._tell(told, *address)
        for host in self.settings.hosts:
            self.tasks.start(f"warm {host}", partial(self._warm, host), again=False)
        self.tasks.start("watchdog", self._watchdog)
        self.tasks.start("audit", self.audit.run_forever)
        self.tasks.start("store", self.store.examine)
        self.tasks.start("memory", self.edge.trim_memory)
        schedule = Schedule(
            self.directory,
            self.synchronizer,
            self.intake,
            self.store,
            interval=self.settings.sync.interval,
            clock=time.time,
            log=self.log,
        )
        self.tasks.start("schedule", schedule.run_forever)
        upkeep = Upkeep(
            self.directory,
            self.pool,
            self.store,
            self.store,
            keep_backups=self.settings.sync.keep_backups,
            age=self.settings.history.age,
            runs=self.settings.history.runs,
            deliveries=self.settings.history.deliveries,
            clock=time.time,
            log=self.log,
        )
        self.tasks.start("upkeep", upkeep.run_forever)
        self.manager.notify("READY=1", f"STATUS={self._status()}")
        self.log.info("listening", host=server.host, port=self.port, metrics=self.metrics_port)

    async def _open(self, host: str, port: int) -> int:
        """Open the door of the HTTP server; return the port, which may be configured as 0."""
        server = await self._served(self._application())
        self._acceptors.append(self.edge.acceptor(server, self._tls()))
        with _bound("server.port", host, port):
            return await self._acceptors[-1].open(host, port)

    async def _tell(self, application: web.Application, host: str, port: int) -> int:
        """Open the door to the figures; return the port."""
        self._acceptors.append(self.edge.metrics_acceptor(await self._served(application)))
        with _bound("metrics.listen", host, port):
            return await self._acceptors[-1].open(host, port)

    async def _served(self, application: web.Application) -> web.Server:
        """Return what answers for an application whoever passes a door."""
        application.on_response_prepare.append(add_headers)
        runner = web.AppRunner(application, shutdown_timeout=5.0)
        await runner.setup()
        self._runners.append(runner)
        if runner.server is None:
            raise ConfigurationError("The HTTP server has not been set up.")
        return runner.server

    def _tls(self) -> ssl.SSLContext | None:
        """Return the listener's own TLS, whose certificate is watched, if it is configured."""
        tls = self.settings.server.tls
        if tls is None:
            return None
        certificates = Certificates(Path(tls.certificate), Path(tls.key), tls_context, time.time, self.log)
        self.tasks.start("certificates", certificates.watch)
        return certificates.context(self.edge.limited_log)

    def _tell_places(self) -> None:
        """Warn where the system lets the process have fewer connections than are configured."""
        wanted, places = self.settings.server.connections, self._places
        if places.most < wanted:
            self.log.warning(
                "connections",
                configured=wanted,
                allowed=places.most,
                reason=f"the process may open {places.files} files, and syncs need some of them",
                remedy="raise LimitNOFILE= of the unit (ulimit -n), or lower server.connections",
            )

    def _application(self) -> web.Application:
        return application(
            Ports(
                intake=self.intake,
                audit=self.audit,
                records=self.store,
                hooks=self.settings.hooks,
                store=self.store,
                sites=self.settings.sites,
                directory=self.directory,
                worker=self.worker,
                synchronizer=self.synchronizer,
                rollbacks=Rollbacks(self.store, self.settings.sites, self.synchronizer, time.time, self.log),
                tokens=self.settings.tokens,
                sessions=self.store,
                delegation=self.studio_callers,
                ready=self.unready,
                stopping=self._stopping,
                clock=time.time,
                log=self.log,
                outer=self.edge.outer(),
                inner=self.edge.inner(),
                wait=self.settings.server.wait,
                session=self.settings.server.session,
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
        return self._failing()

    def _failing(self) -> str:
        """Return which background tasks fail again and again; empty if none does."""
        names = self.tasks.failing()
        return f"These tasks fail again and again, and the log says why: {', '.join(names)}." if names else ""

    async def _warm(self, host: str) -> None:
        try:
            await self.pool.warm(host, Remarks(self.log, host=host))
        except SyncError as error:
            self.log.warning("host", host=host, error=error.code, message=error.message, remedy=error.remedy)

    async def _watchdog(self) -> None:
        """Tell systemd that the service lives: that the store answers, if only that it can't be written to.

        A full disk or a database that is away heals without a restart, and is not healed by one. A task that
        fails again and again may be: a listener that can't sync at all is restarted.
        """
        interval, told = self.manager.watchdog, ""
        while interval is not None:
            await self.unready()
            failing = self._failing()
            if failing != told:
                self.manager.notify(f"STATUS={failing or self._status()}")
                told = failing
            if VITAL.isdisjoint(self.tasks.failing()):
                self.manager.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _status(self) -> str:
        return f"listening on {self.settings.server.host}:{self.port}"


@contextmanager
def _bound(setting: str, host: str, port: int) -> Iterator[None]:
    """Say what to do where an address can't be listened on."""
    try:
        yield
    except PermissionError as error:
        raise ConfigurationError(
            f"{setting}: this user may not listen on {host}:{port}",
            remedy=f"choose a {setting} from 1024 on, and let a proxy or the firewall lead to it",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: can't listen on {host}:{port}: {error.strerror}",
            remedy=f"choose another {setting}, or end what listens there",
        ) from error


def _limits(settings: Settings, places: ConnectionBudget) -> Limits:
    server = settings.server
    return Limits(
        head_timeout=server.head_timeout,
        connections=places.most,
        scrapers=places.scrapers,
        refusals=server.refusals,
        unverified_bytes=server.unverified_bytes,
        trusted=tuple(server.trusted_proxies),
    )


def _studio(settings: Settings) -> StudioClient | None:
    asked = settings.studio
    if asked is None or not (asked.token or asked.management_token):
        return None
    return StudioClient(
        asked.url, token=asked.token, management_token=asked.management_token, timeout=asked.timeout
    )


def _studio_callers(settings: Settings) -> StudioCallers | None:
    asked = settings.studio
    if asked is None or not asked.callers:
        return None
    return StudioCallers(
        asked.url, roles=frozenset(asked.callers), concerns=settings.sites.__contains__, timeout=asked.timeout
    )


def cleaner(settings: Settings) -> Cleaner:
    """Return what takes the configured secrets out of every line."""
    return Cleaner(secret.decode("utf-8", "replace") for secret in settings.secrets)
