"""A valid configuration, made of the core's own values, and how it is told without its secrets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from listener.access import Token
from listener.config.names import OFF
from listener.config.stores import told
from listener.deliveries import READERS, Hook
from listener.networks import Network
from listener.runs import RetryPolicy
from listener.signatures import PATH
from listener.sites import Access, Environment, Host, Site, Sites

STORE_PREFIX = "sqlite:///"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The paths of the listener's certificate and its key, as PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the listener answers HTTP. Times are seconds."""

    host: str
    port: int
    wait: float
    """How long a caller waits for its sync unless it asks for another time."""
    body_timeout: float
    drain: float
    """How long running syncs may go on when the listener is stopped."""
    session: float
    """How long a sign-in to the page lasts."""
    tls: TlsSettings | None
    trusted_proxies: tuple[Network, ...]
    head_timeout: float
    """How long a request's head may take."""
    connections: int
    refusals: int
    """How many requests of one client may be refused in a minute."""
    unverified_bytes: int
    """How much of bodies may be held before they are verified."""


@dataclass(frozen=True, slots=True)
class StudioSettings:
    """Where Studio is asked before a branch is moved, or who a caller is; it is asked at least one thing."""

    url: str
    """It ends with Studio's own path, without a slash."""
    token: str | None = field(repr=False)
    """Whose user may read the publishing status."""
    management_token: str | None = field(repr=False)
    """What tells the cluster role."""
    timeout: float
    """Seconds."""
    callers: frozenset[str] = frozenset()
    """The Studio roles whose holders may call as members of their sites."""


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How syncs go. Times are seconds."""

    quiet: float
    patience: float
    step_timeout: float
    connect_timeout: float
    transfer_timeout: float
    cache: str
    """The folder in which objects travel from host to host."""
    keep_backups: float
    concurrency: int
    per_host: int
    settle: float
    settle_most: float
    interval: float
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """What is kept of the past."""

    age: float
    """Seconds."""
    runs: int
    deliveries: int
    """Of each hook, with all that they said."""


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where the figures are told."""

    listen: str
    """`HOST:PORT`, or `off`."""

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and the port to listen on; None for nowhere."""
        if self.listen == OFF:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and in which form."""

    level: str
    format: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is configured. It never changes; a new file makes new settings."""

    server: ServerSettings
    store: str = field(repr=False)
    """The store's URL, which may hold a password."""
    hosts: Mapping[str, Host]
    sites: Sites
    hooks: Mapping[str, Hook]
    tokens: tuple[Token, ...]
    sync: SyncSettings
    history: HistorySettings
    metrics: MetricsSettings
    log: LogSettings
    secrets: frozenset[bytes] = field(repr=False)
    """Every secret, for the log to leave out."""
    warnings: tuple[str, ...] = ()
    """What is allowed, but better known."""
    studio: StudioSettings | None = None

    @property
    def store_name(self) -> str:
        """The path of the SQLite file, or the database by its URL without password and options."""
        if not self.store.startswith(STORE_PREFIX):
            return told(self.store)
        return "/" + self.store.removeprefix(STORE_PREFIX).lstrip("/")


def describe(settings: Settings) -> list[str]:
    """Return what was understood of a configuration, a line each, without secrets; warnings come last."""
    server, sync = settings.server, settings.sync
    return [
        _server_line(server),
        f"store: {settings.store_name}",
        *(_ssh_line(host) for host in list(settings.hosts.values())[:1]),
        *(_host_line(host) for host in settings.hosts.values()),
        *(line for site in _told(settings.sites) for line in _site_lines(site)),
        *(_hook_line(hook) for hook in settings.hooks.values()),
        *(_token_line(token) for token in settings.tokens),
        *(_studio_line(studio) for studio in (settings.studio,) if studio),
        f"sync: at most {sync.concurrency} at a time, each tried up to {sync.retry.attempts} times",
        f"schedule: {_schedule_text(sync.interval)}",
        f"metrics: {_metrics_text(settings.metrics)}",
        f"log: {settings.log.level} and above, format {settings.log.format}",
        *(f"warning: {warning}" for warning in settings.warnings),
    ]


def _server_line(server: ServerSettings) -> str:
    speaks = "http" if server.tls is None else "https"
    proxies = ", ".join(str(network) for network in server.trusted_proxies)
    behind = f", behind the trusted proxies {proxies}" if proxies else ""
    authority = _authority(server.host, server.port)
    return f"server: {speaks} on {authority}{behind}, a caller waits up to {server.wait:g} s"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ssh_line(host: Host) -> str:
    shown = [f"the key {host.identity}"] if host.identity else []
    shown += [f"the keys of the agent at {host.agent}"] if host.agent else []
    ways = f", hosts as {host.config} has them" if host.config else ""
    return f"ssh: logs in with {', then '.join(shown)}{ways}"


def _host_line(host: Host) -> str:
    address = host.address if host.port is None else _authority(host.address, host.port)
    through = f", through {host.via}" if host.via else ""
    through += _ACCESSES.get(host.access, "")
    return f"host {host.name}: {host.user}@{address}{through}"


_ACCESSES = {Access.GIT: ", git's own services only", Access.RESTRICTED: ", by a restricted key"}


def _told(sites: Sites) -> list[Site]:
    """Return the sites as they are configured, patterns last."""
    return [*sites, *(pattern.template for pattern in sites.patterns)]


def _site_lines(site: Site) -> list[str]:
    return [
        f"site {site.id}: {site.repository}, live branch {site.live}",
        *(f"environment {site.id}/{e.name}: {_environment_text(e)}" for e in site.environments.values()),
    ]


def _environment_text(environment: Environment) -> str:
    when = "by every publish to live" if environment.follow else "only by a call that names it"
    branches = ", ".join(
        f"branch {leg.branch}" + ("" if leg.own else f" on {leg}") for leg in environment.legs
    )
    return f"{branches}, policy {environment.policy}, synced {when}"


def _hook_line(hook: Hook) -> str:
    secrets = "1 secret" if len(hook.secrets) == 1 else f"{len(hook.secrets)} secrets"
    selects = [f"{repository} is {site}" for repository, site in hook.repositories.items()]
    selects += sorted(hook.sites) + ([hook.site] if hook.site else [])
    selects += [f"branch {hook.branch}"] if hook.branch else []
    selects += [f"environment {name} only" for name in sorted(hook.environments)]
    selects += [f"from {network} only" for network in hook.networks]
    path = f"/hooks/{hook.name}" + ("/SECRET" if hook.scheme == PATH else "")
    return f"hook {hook.name}: POST {path}, scheme {hook.scheme}, {secrets}, {', '.join(selects)}"


def _token_line(token: Token) -> str:
    covers = "" if token.admin else f" of {', '.join(sorted(token.sites))}"
    ends = "" if token.expires is None else f", expires {_utc(token.expires)}"
    return f"token {token.name}: {token.role}{covers}{ends}"


def _studio_line(studio: StudioSettings) -> str:
    asked = ["whether it is publishing"] if studio.token else []
    asked += ["whether it is the primary"] if studio.management_token else []
    asked += [f"who a caller is ({', '.join(sorted(studio.callers))} may sync)"] if studio.callers else []
    return f"studio: {studio.url}, asked {' and '.join(asked)}, answers within {studio.timeout:g} s"


def _schedule_text(interval: float) -> str:
    return f"each site is looked at for drift every {interval:g} s" if interval else "nothing is looked at"


def _metrics_text(metrics: MetricsSettings) -> str:
    return f"told on {metrics.listen}" if metrics.address else "not told"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return what was understood of a configuration as values for JSON, without secrets."""
    return {
        "server": _server_dict(settings.server),
        "store": told(settings.store),
        "hosts": {name: asdict(host) for name, host in settings.hosts.items()},
        "sites": {site.id: _site_dict(site) for site in _told(settings.sites)},
        "hooks": {name: _hook_dict(hook) for name, hook in settings.hooks.items()},
        "tokens": [_token_dict(token) for token in settings.tokens],
        "studio": _studio_dict(settings.studio) if settings.studio else None,
        "sync": asdict(settings.sync),
        "history": asdict(settings.history),
        "metrics": asdict(settings.metrics),
        "log": asdict(settings.log),
        "warnings": list(settings.warnings),
    }


def _server_dict(server: ServerSettings) -> dict[str, Any]:
    return {**asdict(server), "trusted_proxies": [str(network) for network in server.trusted_proxies]}


def _site_dict(site: Site) -> dict[str, Any]:
    return {
        "repository": asdict(site.repository),
        "live": site.live,
        "environments": {
            e.name: {
                "legs": [{"repository": str(leg), "branch": leg.branch} for leg in e.legs],
                "policy": str(e.policy),
                "follow": e.follow,
            }
            for e in site.environments.values()
        },
    }


def _hook_dict(hook: Hook) -> dict[str, Any]:
    return {
        "scheme": hook.scheme,
        "secrets": len(hook.secrets),
        "repositories": dict(hook.repositories),
        "site": hook.site,
        "sites": sorted(hook.sites),
        "branch": hook.branch,
        "environments": sorted(hook.environments),
        "networks": [str(network) for network in hook.networks],
        "events": sorted(hook.events),
        "hmac": None if hook.form is None else asdict(hook.form),
        "payload": asdict(hook.payload) if READERS[hook.scheme].configurable else None,
        "body_limit": hook.body_limit,
    }


def _token_dict(token: Token) -> dict[str, Any]:
    expires = None if token.expires is None else _utc(token.expires)
    return {"name": token.name, "role": str(token.role), "sites": sorted(token.sites), "expires": expires}


def _studio_dict(studio: StudioSettings) -> dict[str, Any]:
    return {
        "url": studio.url,
        "token": studio.token is not None,
        "management_token": studio.management_token is not None,
        "timeout": studio.timeout,
        "callers": sorted(studio.callers),
    }
