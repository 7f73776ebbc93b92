"""The shape of a configuration file. A setting's description is what its error tells to write."""

from types import NoneType
from typing import Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from listener.access import Role
from listener.config.names import (
    Address,
    BodyPath,
    BranchName,
    Duration,
    Flag,
    HeaderName,
    Keeping,
    Limit,
    Listen,
    ListKey,
    LocalPath,
    Moment,
    Name,
    NetworkText,
    RemotePath,
    RepositoryName,
    Sha256,
    SiteId,
    StoreUrl,
    StudioRole,
    StudioUrl,
    User,
    Whole,
    rule,
)
from listener.config.problems import Location
from listener.config.server import ServerSection
from listener.config.shape import Section
from listener.sites import Access, Policy

FOLLOW_CHOICE = (
    "in live's own repository there is no default, because with staging enabled Studio publishes items to "
    "staging first, and a sync removes those that wait there for review. Write follow: true to let every "
    "publish to live sync this environment, or follow: false to sync it only when a call names it"
)


class SshSection(Section):
    """What the listener logs in with, on every host."""

    known_hosts: str = Field(description="the path of a file with the hosts' keys, as OpenSSH has it")
    identity: str | None = Field(None, description="the path of the private key to log in with")
    agent: str | None = Field(None, description="the path of an ssh agent's socket, or env:SSH_AUTH_SOCK")
    config: str | None = Field(None, description="the path of an OpenSSH configuration that hosts stand in")


class HostEntry(Section):
    """A repo host."""

    address: Address = Field(description="the host's name, its IP address, or its alias in ssh.config")
    port: Whole | None = Field(None, ge=1, le=65535, description="the port of its sshd, such as 22")
    user: User = Field(description="the user that owns the repositories on it, such as crafter")
    via: str | None = Field(None, description="the name of the configured host to reach it through")
    access: Access = Field(
        Access.SH,
        strict=False,
        description="sh, restricted where the key is bound to sync-staging-shell, or git where the account "
        "runs nothing but git (git-shell)",
    )


class RepositoryEntry(Section):
    """A published repository."""

    host: str = Field(description="the name of one of the configured hosts")
    path: RemotePath = Field(description="the repository's absolute path on its host")


class CarrierEntry(RepositoryEntry):
    """A repository that carries an environment's branch."""

    branch: BranchName | None = Field(None, description="its branch, if that has another name there")


class EnvironmentEntry(Section):
    """A staging environment."""

    branch: BranchName | None = Field(None, description="its branch, if that has another name than itself")
    policy: Policy = Field(Policy.FORWARD, strict=False, description="forward, reset or fast-forward")
    follow: Flag | None = Field(None, description=FOLLOW_CHOICE)
    repositories: list[CarrierEntry] = Field(
        default_factory=list,
        min_length=1,
        description="a list of one or more maps of host and path: the repositories that carry its branch",
    )


class SiteEntry(Section):
    """A CrafterCMS site."""

    repository: RepositoryEntry = Field(description="a map of host and path: the site's published repository")
    live: BranchName = Field("live", description="the branch that the environments are made equal to")
    environments: dict[Name, EnvironmentEntry] = Field(
        min_length=1, description="a map of the site's staging environments, at least one"
    )


class HmacSection(Section):
    """How a sender signs, for the scheme hmac."""

    header: HeaderName = Field(description="the header that the signature stands in, such as X-Signature")
    algorithm: Literal["sha256", "sha512"] = Field("sha256", description="such as sha256")
    encoding: Literal["hex", "base64"] = Field("hex", description="such as hex")
    prefix: str = Field("", description="what stands before the signature, such as sha256=")
    signature_key: ListKey | None = Field(
        None, description="the key of the signature in a header such as t=1700000000,v1=…: here v1"
    )
    timestamp_key: ListKey | None = Field(
        None, description="the key of the timestamp in a header such as t=1700000000,v1=…: here t"
    )
    timestamp_header: HeaderName | None = Field(
        None, description="the header that is the timestamp, such as X-Timestamp"
    )
    signed: str | None = Field(None, description="the text that is signed, such as '{timestamp}.{body}'")
    tolerance: Limit = Field(300.0, description="how far off the timestamp may be, such as 5m")


class PayloadSection(Section):
    """Where a body says what, for the schemes whose bodies are the sender's own."""

    site: BodyPath = Field("site_id", description="the place of the site's id in the body, such as site_id")
    repository: BodyPath | None = Field(
        None, description="the place of the repository's full name, such as repository.full_name"
    )
    ref: BodyPath = Field("ref", description="the place of the full ref, such as ref")
    branch: BodyPath = Field("environment", description="the place of the branch, such as environment")
    event: BodyPath = Field("event", description="the place of the event, such as event")
    id: BodyPath | None = Field(None, description="the place of the delivery's id, such as id")
    id_header: HeaderName | None = Field(
        None, description="the header that is the delivery's id, such as X-Delivery-Id"
    )


class HookEntry(Section):
    """A webhook endpoint."""

    scheme: str = Field(description="how the sender signs, such as github")
    secrets: list[str] = Field(
        min_length=1,
        repr=False,
        description="a list of one or more secrets, such as [credential:forge-secret]; "
        "no hook starts without one",
    )
    repositories: dict[RepositoryName, str] = Field(
        default_factory=dict, description="a map of repository names, each with the site that it mirrors"
    )
    site: str | None = Field(None, description="the one site that every delivery selects")
    sites: list[str] = Field(default_factory=list, description="a list of sites that a payload may select")
    branch: BranchName | None = Field(
        None, description="the branch of a publish, if it is not the site's live"
    )
    environments: list[str] = Field(
        default_factory=list, description="a list of the environments that it may sync, such as [staging]"
    )
    events: list[str] = Field(
        default_factory=list, description="a list of the events that tell of a publish, such as [publish]"
    )
    networks: list[NetworkText] = Field(
        default_factory=list,
        min_length=1,
        description="a list of the networks that its deliveries come from, such as [192.0.2.0/24]",
    )
    hmac: HmacSection | None = Field(None, description="a map of header and of how it is made")
    payload: PayloadSection = Field(
        default_factory=PayloadSection, description="a map of places in the body, such as {site: site_id}"
    )


class TokenEntry(Section):
    """An API credential."""

    name: Name = Field(description="a name for the logs, such as ci")
    sha256: Sha256 = Field(description="the hex SHA-256 of the token's text")
    role: Role = Field(strict=False, description="admin or member")
    sites: list[str] = Field(default_factory=list, description="a list of the sites that a member may sync")
    expires: Moment | None = Field(None, description="a time such as 2027-01-31T00:00:00Z")


class StudioSection(Section):
    """CrafterCMS Studio, where it is asked before a branch is moved, or who a caller is."""

    url: StudioUrl = Field(description="Studio's address, such as http://studio.example.com:8080/studio")
    token: str | None = Field(
        None, repr=False, description="the access token of a Studio user, such as credential:studio-token"
    )
    management_token: str | None = Field(
        None, repr=False, description="Studio's management token, such as credential:studio-management"
    )
    callers: list[StudioRole] = Field(
        default_factory=list, description="a list of the Studio roles that may call, such as [admin]"
    )
    timeout: Limit = Field(5.0, description="how long Studio may take to answer, such as 5s")


class SyncSection(Section):
    """How syncs go."""

    quiet: Duration = Field(2.0, description="how long a repository must have been left alone, such as 2s")
    patience: Duration = Field(900.0, description="after how long a publish counts as crashed, such as 15m")
    step_timeout: Limit = Field(60.0, description="how long a step on a host may take, such as 60s")
    connect_timeout: Limit = Field(15.0, description="how long logging in may take, such as 15s")
    transfer_timeout: Limit = Field(
        1800.0, description="how long bringing objects to another host may take, such as 30m"
    )
    cache: LocalPath = Field(
        "/var/lib/sync-staging/cache", description="the absolute path of a folder for the cache of objects"
    )
    keep_backups: Keeping = Field(
        30 * 86400.0, description="how long the commits that a reset took away are kept, such as 30d"
    )
    concurrency: Whole = Field(8, ge=1, le=256, description="how many syncs run at the same time, such as 8")
    per_host: Whole = Field(3, ge=1, le=256, description="how many syncs may need the same host, such as 3")
    settle: Duration = Field(
        0.0, description="how long an automatic sync waits for further publishes, such as 10s"
    )
    settle_most: Duration = Field(60.0, description="how long it waits for them at most, such as 60s")
    interval: Duration = Field(
        900.0, description="how often each site is looked at for drift, such as 15m; 0 for never"
    )
    attempts: Whole = Field(20, ge=1, le=1000, description="how often a failing sync is tried, such as 20")
    backoff: Limit = Field(1.0, description="how long the second attempt waits, such as 1s")
    backoff_most: Limit = Field(300.0, description="how long any attempt waits at most, such as 5m")

    @field_validator("backoff_most")
    @classmethod
    def _not_below_backoff(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("backoff", 0.0):
            raise rule("is shorter than sync.backoff; write a longer duration, or a shorter backoff")
        return value


class HistorySection(Section):
    """What is kept of the past."""

    age: Keeping = Field(
        90 * 86400.0, description="how long ended runs, their logs and deliveries are kept, such as 90d"
    )
    runs: Whole = Field(100_000, ge=1, le=10**9, description="how many ended runs are kept, such as 100000")
    deliveries: Whole = Field(
        100_000, ge=1, le=10**9, description="how many deliveries of a hook are kept whole, such as 100000"
    )


class MetricsSection(Section):
    """Where Prometheus finds the figures."""

    listen: Listen = Field(
        "127.0.0.1:9787", description="the address of GET /metrics, such as 127.0.0.1:9787, or off"
    )


class LogSection(Section):
    """What the listener logs, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="such as info")
    format: Literal["auto", "json", "console"] = Field("auto", description="such as auto")


class Document(Section):
    """A whole configuration file."""

    server: ServerSection = Field(default_factory=ServerSection, description="a map of settings")
    store: StoreUrl = Field("sqlite:///var/lib/sync-staging/listener.db", description="the URL of the store")
    ssh: SshSection = Field(description="a map of known_hosts, and of identity or agent")
    hosts: dict[Name, HostEntry] = Field(min_length=1, description="a map of repo hosts, at least one")
    sites: dict[SiteId, SiteEntry] = Field(min_length=1, description="a map of sites, at least one")
    hooks: dict[Name, HookEntry] = Field(default_factory=dict, description="a map of webhook endpoints")
    tokens: list[TokenEntry] = Field(default_factory=list, description="a list of API credentials")
    studio: StudioSection | None = Field(
        None, description="a map of url, and of token, management_token or callers"
    )
    sync: SyncSection = Field(default_factory=SyncSection, description="a map of settings")
    history: HistorySection = Field(default_factory=HistorySection, description="a map of settings")
    metrics: MetricsSection = Field(default_factory=MetricsSection, description="a map of settings")
    log: LogSection = Field(default_factory=LogSection, description="a map of settings")


def setting(location: Location) -> FieldInfo | None:
    """Return the setting that stands at a place in a file, or None if none does."""
    *above, last = location
    found = section(tuple(above))
    return found.model_fields.get(str(last)) if found else None


def section(location: Location) -> type[Section] | None:
    """Return the map of settings that stands at a place in a file, or None if none does."""
    kind: Any = Document
    for step in location:
        if isinstance(kind, type) and issubclass(kind, Section):
            entry = kind.model_fields.get(str(step))
            kind = _wanted(entry.annotation) if entry else None
        else:
            kind = get_args(kind)[-1] if get_args(kind) else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _wanted(kind: Any) -> Any:
    """Return what a setting is, where it is there."""
    others = [each for each in get_args(kind) if each is not NoneType]
    return others[0] if NoneType in get_args(kind) else kind
