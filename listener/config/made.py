"""A valid configuration, made of the core's own values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from listener.access import Token
from listener.config.names import OFF
from listener.config.stores import told
from listener.deliveries import Hook
from listener.networks import Network
from listener.runs import RetryPolicy
from listener.sites import Host, Sites

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
