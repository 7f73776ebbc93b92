"""Builds and starts a whole listener. `serve`, `sync --local` and the end-to-end tests use this object."""

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
from listener.feed import Feed
from listener.host_events import HostEvents
from listener.intake import Intake, Settling
from listener.journal import Log, Remarks
from listener.metrics import Metrics, Scope, Watched
from listener.queue import RunStore
from listener.redaction import Cleaner
from listener.rollback import Rollbacks
from listener.schedule import Schedule
from listener.ssh import HostPool
from listener.store import open_store
from listener.studio import StudioCallers, StudioClient
from listener.supervision import Supervisor
from listener.surveys import Surveys
from listener.sync import Synchronizer
from listener.systemd import ServiceManager
from listener.upkeep import Upkeep
from listener.web.app import Ports, application, routes
from listener.web.replies import add_headers, private_problem
from listener.worker import Worker

VITAL = frozenset({"worker", "beat"})
"""The tasks that every sync needs: while one of them keeps failing, the watchdog gets no sign of life."""

RECALLED_FIRST = 500
"""Environments whose last looks are read during the start. The others are read in the background."""


WARM = 60.0
"""Seconds between two checks that each host is connected."""


class System:
    """One listener. Entering it starts the work, leaving it drains and stops."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(_scope(settings), time.time)
        self.log = self.metrics.counting(structlog.get_logger())
        self.clean = cleaner(settings)
        self.store = open_store(settings.store)
        self.pool = _pool(settings)
        self.studio = _studio(settings)
        self.studio_callers = _studio_callers(settings)
        self.synchronizer = _synchronizer(settings, self.pool, self.studio)
        self.directory = Directory(settings.sites, self.pool, time.time, self.log)
        self.surveys = Surveys(self.synchronizer, self.store, time.time, self.log)
        self.worker = _worker(settings, self.store, self.synchronizer, self.surveys, self.log, self.clean)
        self.audit = Audit(self.store, time.time, self.log, self.clean)
        self.intake = _intake(settings, self.store, self.log, self.audit)
        self.feed = Feed(self.store, self.log)
        self.tasks = Supervisor(self.log)
        self.metrics.watch(Watched(self.synchronizer.waits.overdue, self.pool.health, self.tasks.failures))
        self.manager = ServiceManager(self.log)
        self._stopping = asyncio.Event()
        self._runners: list[web.AppRunner] = []
        self._acceptors: list[Acceptor] = []
        self._budget = places(settings.server.connections, len(settings.hosts), settings.sync.concurrency)
        self.edge = Edge(_limits(settings, self._budget), time.monotonic, self.log, private_problem)
        self.port = settings.server.port
        """The port that the listener listens on; the configured one may be 0."""
        self.metrics_port: int | None = None
        """The port of the metrics; None if they are off."""

    async def __aenter__(self) -> Self:
        """Open the store, recover the runs that a crash left, and start to work."""
        await self.store.open()
        for run in await self.store.recover(time.time()):
            self.log.warning("recovered", run=run.id, site=run.site, environment=run.environment)
        await self._recall()
        self.tasks.start("looks", self.surveys.keep_forever)
        self.tasks.start("worker", self.worker.work)
        self.tasks.start("beat", self.worker.beat)
        return self

    async def _recall(self) -> None:
        """Read the last looks, so that the first runs need no separate look."""
        try:
            places = [each.place for each in await self.store.look_summaries()]
            self.directory.recall({site for site, _ in places})
            found = [each for place in places if (each := self.settings.sites.find(*place))]
            await self.surveys.recall(found[:RECALLED_FIRST])
            self.tasks.start("recall", partial(self.surveys.recall, found[RECALLED_FIRST:]), again=False)
        except StoreError as error:
            self.log.warning("looks", error=error.code, message=error.message)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, let runs end within the limit, put the others back in the queue, and close."""
        self.manager.notify("STOPPING=1")
        self.log.info("stopping", limit=self.settings.server.drain)
        # `beat` goes on: without it another listener would take over the runs that drain here.
        await self.tasks.stop(but={"beat", "events"})
        for acceptor in self._acceptors:
            acceptor.close()
        handed_back = await self.worker.drain(self.settings.server.drain)
        await self.tasks.stop()
        self._stopping.set()
        self.feed.stop()
        for runner in self._runners:
            await runner.cleanup()
        await self.surveys.close()
        await self.close()
        with suppress(StoreError):
            await self.audit.flush()
        await self.store.close()
        self.log.info("stopped", handed_back=handed_back)

    async def close(self) -> None:
        """Close the connections to the hosts and to Studio."""
        await self.directory.close()
        await self.pool.close()
        for client in (self.studio, self.studio_callers):
            if client is not None:
                await client.close()

    async def listen(self) -> None:
        """Open the HTTP server, connect to the hosts, and tell systemd that the service is ready."""
        server = self.settings.server
        self._warn_of_budget()
        self.port = await self._open(server.host, server.port)
        address = self.settings.metrics.address
        if address is not None:
            self.metrics_port = await self._open_metrics(*address)
        self.tasks.start("hosts", self._keep_warm)
        self.tasks.start("watchdog", self._watchdog)
        self.tasks.start("audit", self.audit.run_forever)
        self.tasks.start("events", self.feed.run_forever)
        self.tasks.start("host events", HostEvents(self.pool.health, self.store, time.time).run_forever)
        self.tasks.start("store", self.store.examine)
        self.tasks.start("memory", self.edge.trim_memory)
        self.tasks.start("schedule", self._schedule().run_forever)
        self.tasks.start("upkeep", self._upkeep().run_forever)
        self.manager.notify("READY=1", f"STATUS={self._status()}")
        self.log.info("listening", host=server.host, port=self.port, metrics=self.metrics_port)

    def _schedule(self) -> Schedule:
        return Schedule(
            self.directory,
            self.surveys,
            self.intake,
            self.store,
            interval=self.settings.sync.interval,
            clock=time.time,
            log=self.log,
        )

    def _upkeep(self) -> Upkeep:
        return Upkeep(
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

    async def _open(self, host: str, port: int) -> int:
        """Open the HTTP server; return its port, which may be configured as 0."""
        server = await self._server(self._application())
        self._acceptors.append(self.edge.acceptor(server, self._tls()))
        with _bound("server.port", host, port):
            return await self._acceptors[-1].open(host, port)

    async def _open_metrics(self, host: str, port: int) -> int:
        """Open the server of the metrics; return its port."""
        server = await self._server(metrics.application(self.metrics, self.store))
        self._acceptors.append(self.edge.metrics_acceptor(server))
        with _bound("metrics.listen", host, port):
            return await self._acceptors[-1].open(host, port)

    async def _server(self, application: web.Application) -> web.Server:
        """Return the server of an application, for connections that an acceptor lets in."""
        application.on_response_prepare.append(add_headers)
        runner = web.AppRunner(application, shutdown_timeout=5.0)
        await runner.setup()
        self._runners.append(runner)
        if runner.server is None:
            raise ConfigurationError("The HTTP server has not been set up.")
        return runner.server

    def _tls(self) -> ssl.SSLContext | None:
        """Return the listener's own TLS, if it is configured. Its certificate is watched for a renewal."""
        tls = self.settings.server.tls
        if tls is None:
            return None
        certificates = Certificates(Path(tls.certificate), Path(tls.key), tls_context, time.time, self.log)
        self.tasks.start("certificates", certificates.watch)
        return certificates.context(self.edge.limited_log)

    def _warn_of_budget(self) -> None:
        """Warn if the system allows the process fewer connections than are configured."""
        configured, budget = self.settings.server.connections, self._budget
        if budget.most < configured:
            self.log.warning(
                "connections",
                configured=configured,
                allowed=budget.most,
                reason=f"the process may open {budget.files} files, and syncs need some of them",
                remedy="raise LimitNOFILE= of the unit (ulimit -n), or lower server.connections",
            )

    def _application(self) -> web.Application:
        return application(
            Ports(
                intake=self.intake,
                audit=self.audit,
                records=self.store,
                events=self.store,
                feed=self.feed,
                hooks=self.settings.hooks,
                store=self.store,
                sites=self.settings.sites,
                directory=self.directory,
                worker=self.worker,
                synchronizer=self.synchronizer,
                surveys=self.surveys,
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
        """Return why the listener is not ready for requests; empty when it is."""
        try:
            await self.store.ping()
        except StoreUnavailableError as error:
            return error.message
        return self._failing()

    def _failing(self) -> str:
        """Return which background tasks keep failing; empty if none does."""
        names = self.tasks.failing()
        return f"These tasks keep failing, and the log says why: {', '.join(names)}." if names else ""

    async def _keep_warm(self) -> None:
        """Connect to each host now, and again within a minute after a loss. So its figures are never old."""
        reported: dict[str, str] = {}
        while True:
            await asyncio.gather(*(self._warm(host, reported) for host in self.settings.hosts))
            await asyncio.sleep(WARM)

    async def _warm(self, host: str, reported: dict[str, str]) -> None:
        """Connect to a host; log why that fails, but the same reason only once."""
        code = ""
        try:
            await self.pool.warm(host, Remarks(self.log, host=host))
        except SyncError as error:
            code = error.code
            if reported.get(host) != code:
                self.log.warning("host", host=host, error=code, message=error.message, remedy=error.remedy)
        reported[host] = code

    async def _watchdog(self) -> None:
        """Send systemd a sign of life as long as the store answers, even if it answers with an error.

        A restart does not help against a full disk or a database that is down. It may help against a task
        that keeps failing: a listener that can't sync at all is restarted.
        """
        interval, reported = self.manager.watchdog, ""
        while interval is not None:
            await self.unready()
            failing = self._failing()
            if failing != reported:
                self.manager.notify(f"STATUS={failing or self._status()}")
                reported = failing
            if VITAL.isdisjoint(self.tasks.failing()):
                self.manager.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _status(self) -> str:
        return f"listening on {self.settings.server.host}:{self.port}"


@contextmanager
def _bound(setting: str, host: str, port: int) -> Iterator[None]:
    """Raise `ConfigurationError` with a remedy if an address can't be listened on."""
    try:
        yield
    except PermissionError as error:
        raise ConfigurationError(
            f"{setting}: this user may not listen on {host}:{port}",
            remedy=f"choose a {setting} of 1024 or more; a proxy or the firewall can forward a lower port",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: can't listen on {host}:{port}: {error.strerror}",
            remedy=f"choose another {setting}, or stop the program that listens there",
        ) from error


def _limits(settings: Settings, budget: ConnectionBudget) -> Limits:
    server = settings.server
    return Limits(
        head_timeout=server.head_timeout,
        connections=budget.most,
        scrapers=budget.scrapers,
        refusals=server.refusals,
        unverified_bytes=server.unverified_bytes,
        trusted=tuple(server.trusted_proxies),
    )


def _scope(settings: Settings) -> Scope:
    return Scope(
        settings.sites,
        settings.hooks,
        most=settings.metrics.sites,
        deliveries=settings.history.deliveries,
        patience=settings.sync.patience,
        interval=settings.sync.interval,
        routes={
            f"{each.method} {each.path}": [answer.status for answer in each.answers] for each in routes()
        },
    )


def _pool(settings: Settings) -> HostPool:
    return HostPool(
        settings.hosts,
        step_timeout=settings.sync.step_timeout,
        connect_timeout=settings.sync.connect_timeout,
        transfer_timeout=settings.sync.transfer_timeout,
        cache=Path(settings.sync.cache),
    )


def _synchronizer(settings: Settings, pool: HostPool, studio: StudioClient | None) -> Synchronizer:
    return Synchronizer(pool, quiet=settings.sync.quiet, patience=settings.sync.patience, studio=studio)


def _worker(
    settings: Settings,
    store: RunStore,
    synchronizer: Synchronizer,
    surveys: Surveys,
    log: Log,
    clean: Cleaner,
) -> Worker:
    return Worker(
        store,
        settings.sites,
        synchronizer,
        concurrency=settings.sync.concurrency,
        per_host=settings.sync.per_host,
        policy=settings.sync.retry,
        clock=time.time,
        log=log,
        clean=clean,
        on_end=surveys.note_run,
    )


def _intake(settings: Settings, store: RunStore, log: Log, audit: Audit) -> Intake:
    settling = Settling(settings.sync.settle, settings.sync.settle_most)
    return Intake(store, settings.sites, settings.hooks, time.time, log, audit, settling)


def _studio(settings: Settings) -> StudioClient | None:
    """Return the client that asks Studio whether it is publishing; None without a token for that."""
    studio = settings.studio
    if studio is None or not (studio.token or studio.management_token):
        return None
    return StudioClient(
        studio.url, token=studio.token, management_token=studio.management_token, timeout=studio.timeout
    )


def _studio_callers(settings: Settings) -> StudioCallers | None:
    """Return the client that asks Studio who a caller is; None if Studio's users are not callers."""
    studio = settings.studio
    if studio is None or not studio.callers:
        return None
    return StudioCallers(
        studio.url,
        roles=frozenset(studio.callers),
        concerns=settings.sites.__contains__,
        timeout=studio.timeout,
    )


def cleaner(settings: Settings) -> Cleaner:
    """Return the cleaner that removes the configured secrets from log lines."""
    return Cleaner(secret.decode("utf-8", "replace") for secret in settings.secrets)
