"""Loads a configuration: everything that is configured, or everything that is wrong with it."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from listener.access import Token
from listener.config.check import check
from listener.config.file import read
from listener.config.hooks import made, weak_secrets
from listener.config.made import (
    STORE_PREFIX,
    HistorySettings,
    LogSettings,
    MetricsSettings,
    ServerSettings,
    Settings,
    StudioSettings,
    SyncSettings,
    TlsSettings,
)
from listener.config.model import (
    Document,
    HostEntry,
    SshSection,
    StudioSection,
    SyncSection,
    TokenEntry,
)
from listener.config.modes import broken_modes
from listener.config.names import loopback, plain_path, unix_seconds
from listener.config.problems import Location, Problem, quoted, refusal, shown
from listener.config.references import Resolution, Surroundings, find, resolve
from listener.config.rules import broken
from listener.config.server import made_server, server_warnings
from listener.config.sites import made_sites
from listener.config.stores import store_secrets, unverified
from listener.runs import RetryPolicy
from listener.signatures import spellings
from listener.signatures.weaknesses import famous
from listener.sites import Access, Host

__all__ = [
    "STORE_PREFIX",
    "HistorySettings",
    "LogSettings",
    "MetricsSettings",
    "ServerSettings",
    "Settings",
    "StudioSettings",
    "SyncSettings",
    "TlsSettings",
    "load",
]

SECRETS = ("hooks.*.secrets.*", "studio.token", "studio.management_token")
"""Where secrets stand in a file."""

SSH_PORT = 22


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in a configuration file; raise `ConfigurationError` with all that is wrong in it.

    `environ` is where `env:NAME` and the folder of `credential:NAME` are looked up.
    """
    path = Path(path)
    surroundings = Surroundings(path.absolute().parent, environ)
    resolution = resolve(read(path), surroundings)
    document, faults = check(resolution.tree)
    faults = [fault for fault in faults if fault.location not in resolution.unresolved]
    problems = [*resolution.problems, *faults, *broken(resolution, surroundings)]
    problems += [*_open_file(path, resolution), *broken_modes(path, resolution, surroundings)]
    if document is None or problems:
        raise refusal(path, problems)
    return _settings(document, resolution)


def _open_file(path: Path, resolution: Resolution) -> Iterator[Problem]:
    """Yield the secrets that stand in clear in a file that everybody may read."""
    if not path.stat().st_mode & stat.S_IROTH:
        return
    for location in _in_clear(resolution):
        yield Problem(
            location,
            f"the secret stands in clear in a file that everybody may read; run chmod 600 {quoted(path)}, or "
            "write credential:NAME or file:PATH",
        )


def _in_clear(resolution: Resolution) -> Iterator[Location]:
    for pattern in SECRETS:
        for location, value in find(resolution.tree, pattern):
            if value is not None and location not in resolution.references:
                yield location


def _settings(document: Document, resolution: Resolution) -> Settings:
    return Settings(
        server=made_server(document.server),
        store=document.store,
        hosts={name: _host(name, entry, document.ssh) for name, entry in document.hosts.items()},
        sites=made_sites(document.sites),
        hooks={name: made(name, entry, resolution) for name, entry in document.hooks.items()},
        tokens=tuple(_token(entry) for entry in document.tokens),
        sync=_sync(document.sync),
        history=HistorySettings(**document.history.model_dump()),
        metrics=MetricsSettings(**document.metrics.model_dump()),
        log=LogSettings(**document.log.model_dump()),
        secrets=frozenset(secret.encode() for secret in _secrets(document)),
        warnings=tuple(_warnings(document, resolution)),
        studio=None if document.studio is None else _studio(document.studio),
    )


def _secrets(document: Document) -> Iterator[str]:
    yield from store_secrets(document.store)
    for hook in document.hooks.values():
        for secret in hook.secrets:
            yield from spellings(hook.scheme, secret)
    if document.studio is not None:
        for token in filter(None, (document.studio.token, document.studio.management_token)):
            yield token
            yield quote(token, safe="")  # as it stands in a URL


def _host(name: str, entry: HostEntry, ssh: SshSection) -> Host:
    port = SSH_PORT if entry.port is None and ssh.config is None else entry.port
    return Host(
        name,
        entry.address,
        port,
        entry.user,
        ssh.known_hosts,
        ssh.identity,
        via=entry.via,
        access=entry.access,
        agent=ssh.agent,
        config=ssh.config,
    )


def _token(entry: TokenEntry) -> Token:
    expires = None if entry.expires is None else unix_seconds(entry.expires)
    return Token(entry.name, entry.sha256, entry.role, frozenset(entry.sites), expires)


def _studio(section: StudioSection) -> StudioSettings:
    return StudioSettings(
        section.url.removesuffix("/"),
        section.token,
        section.management_token,
        section.timeout,
        frozenset(section.callers),
    )


def _sync(section: SyncSection) -> SyncSettings:
    return SyncSettings(
        quiet=section.quiet,
        patience=section.patience,
        step_timeout=section.step_timeout,
        connect_timeout=section.connect_timeout,
        transfer_timeout=section.transfer_timeout,
        cache=section.cache,
        keep_backups=section.keep_backups,
        concurrency=section.concurrency,
        per_host=section.per_host,
        settle=section.settle,
        settle_most=section.settle_most,
        interval=section.interval,
        retry=RetryPolicy(section.attempts, section.backoff, section.backoff_most),
    )


def _warnings(document: Document, resolution: Resolution) -> Iterator[str]:
    yield from _reachable(document)
    for site, entry in document.sites.items():
        for name, environment in entry.environments.items():
            if environment.follow and not environment.repositories:
                place = shown(("sites", site, "environments", name, "follow"))
                yield f"{place}: each publish to live removes the items that are staged for review there"
    yield from _blind(document)
    studio = document.studio
    if studio is None or not studio.token:
        yield from _unmarked(document)
    if studio is not None and studio.url.startswith("http:") and not loopback(_host_in(studio.url)):
        yield "studio.url: the tokens travel to another machine in clear: write https:// if Studio speaks it"
    yield from _store_warnings(document.store, resolution)
    for location in _in_clear(resolution):
        yield f"{shown(location)}: the secret stands in clear: write credential:NAME or file:PATH"
    yield from weak_secrets(document.hooks)
    yield from _known_tokens(document)
    if not document.hooks and not document.tokens and not (studio and studio.callers):
        yield "hooks, tokens: there are none, so only sync --local can start a sync"


def _known_tokens(document: Document) -> Iterator[str]:
    for index, token in enumerate(document.tokens):
        if famous(token.sha256, token.name):
            place = shown(("tokens", index, "sha256"))
            yield f"{place}: is that of a word that anybody would try: make another token with token new"


def _reachable(document: Document) -> Iterator[str]:
    """Yield what others than this machine may reach."""
    yield from server_warnings(document.server)
    metrics = MetricsSettings(document.metrics.listen).address
    if metrics is not None and not loopback(metrics[0]):
        yield "metrics.listen: others than this machine read the figures, whose labels name sites and hooks"


def _store_warnings(store: str, resolution: Resolution) -> Iterator[str]:
    if unverified(store):
        yield "store: nothing verifies that it is the right server: write ?sslmode=verify-full behind the URL"
    if any(store_secrets(store)) and ("store",) not in resolution.references:
        yield "store: the password stands in clear: write the URL as credential:NAME or file:PATH"


def _blind(document: Document) -> Iterator[str]:
    """Yield the environments of which nobody can tell whether Studio is writing into their repository."""
    for site, entry in document.sites.items():
        if document.hosts[entry.repository.host].access is not Access.GIT:
            continue
        for name, environment in entry.environments.items():
            if not environment.repositories:
                yield (
                    f"{shown(('sites', site, 'environments', name))}: {entry.repository.host} runs git's own "
                    "services only: sync.quiet can't be kept, and a branch that is checked out is refused"
                )


def _unmarked(document: Document) -> Iterator[str]:
    """Yield the environments in whose repository a publish may go unseen, for Studio is not asked."""
    for site, entry in document.sites.items():
        host, path = entry.repository.host, plain_path(entry.repository.path)
        if document.hosts[host].access is Access.GIT:
            continue
        for name, environment in entry.environments.items():
            carriers = [(each.host, plain_path(each.path)) for each in environment.repositories]
            if not carriers or (host, path) in carriers:
                yield f"{shown(('sites', site, 'environments', name))}: {_UNMARKED}"


_UNMARKED = (
    "a sync can lose what Studio 5 publishes here: a large publish can pause for longer than sync.quiet, and "
    "nothing in the repository shows it; give studio.token, or ignore this if your Studio is older than 5"
)


def _host_in(url: str) -> str:
    return urlsplit(url).hostname or ""
