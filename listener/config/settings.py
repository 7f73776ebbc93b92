"""Loads a configuration: everything that is configured, or everything that is wrong with it."""

import gc
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import Field

from listener.access import Token
from listener.config.document import (
    Checked,
    Common,
    Document,
    broken_references,
    broken_rules,
    check,
)
from listener.config.file import Written, read_all
from listener.config.files import broken_cache, broken_modes, broken_ssh, broken_tls
from listener.config.names import public_url, store_secrets, unverified
from listener.config.problems import Location, Problem, exposed, quoted, refusal, shown
from listener.config.references import Resolution, Surroundings, resolve
from listener.config.sections import HostSection
from listener.config.sites import built_sites, site_warnings
from listener.deliveries import Hook
from listener.errors import ConfigurationError
from listener.signatures import redaction_forms
from listener.sites import Host, Sites

STORE_PREFIX = "sqlite:///"

SSH_PORT = 22


class Settings(Common):
    """Everything that is configured. It never changes; a new file makes new settings."""

    document: Document = Field(repr=False)
    """The sections as they are written."""
    references: Mapping[Location, str] = Field(repr=False)
    """By the places of values that are references, those references."""

    @cached_property
    def hosts(self) -> Mapping[str, Host]:
        """The hosts by their names."""
        return {name: _host(name, section, self.document) for name, section in self.document.hosts.items()}

    @cached_property
    def sites(self) -> Sites:
        """The sites, and the patterns of sites."""
        return built_sites(self.document.sites)

    @cached_property
    def hooks(self) -> Mapping[str, Hook]:
        """The hooks by their names."""
        return {name: section.hook(name, self.references) for name, section in self.document.hooks.items()}

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens."""
        sections = self.document.tokens
        return tuple(Token(**{**dict(each), "sites": frozenset(each.sites)}) for each in sections)

    @cached_property
    def secrets(self) -> frozenset[bytes]:
        """Every secret, for the log to leave out."""
        return frozenset(secret.encode() for secret in _secrets(self.document))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is valid but risky."""
        return tuple(_warnings(self.document, self.references))

    @property
    def store_name(self) -> str:
        """The path of the SQLite file, or the database by its URL without password and options."""
        if not self.store.startswith(STORE_PREFIX):
            return public_url(self.store)
        return "/" + self.store.removeprefix(STORE_PREFIX).lstrip("/")


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in a configuration file; raise `ConfigurationError` with all that is wrong in it.

    `environ` is where `env:NAME` and the folder of `credential:NAME` are looked up.
    """
    path = Path(path)
    surroundings = Surroundings(path.absolute().parent, environ)
    with _without_collection():
        written = read_all(path, surroundings)
        resolution = resolve(written.tree, surroundings)
        checked = check(written.tree)
        problems = list(_problems(written, resolution, checked, surroundings))
        if problems:
            raise refusal(path, problems, written.show)
        sections = {key: getattr(checked.document, key) for key in Common.model_fields}
        settings = Settings.model_construct(
            **sections, document=checked.document, references=resolution.references
        )
        _ = settings.sites  # Built now, while no garbage is collected.
        return settings


@contextmanager
def _without_collection() -> Iterator[None]:
    """Don't collect garbage meanwhile: a large configuration is a million objects that all stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _problems(
    written: Written, resolution: Resolution, checked: Checked, surroundings: Surroundings
) -> Iterator[Problem]:
    """Yield everything that is wrong. A reference without a value is the only problem of its place."""
    document, unresolved = checked.document, resolution.unresolved
    yield from written.problems
    yield from resolution.problems
    judged = [*checked.problems, *broken_rules(document), *broken_references(checked)]
    if document.ssh is not None:
        judged += broken_ssh(document.ssh, surroundings)
    tls = document.server.tls
    if tls is not None and not any(("server", "tls", key) in unresolved for key in tls.model_fields_set):
        judged += broken_tls(tls, surroundings)
    yield from (each for each in judged if each.location not in unresolved)
    yield from (exposed(at, file) for at, file in resolution.exposed.items() if _secret(at))
    yield from _open_files(written, document, resolution)
    yield from broken_modes(written)
    yield from broken_cache(document.sync.cache)


def _secret(location: Location) -> bool:
    """Return whether a secret stands at a place."""
    in_studio = location in {("studio", "token"), ("studio", "management_token")}
    return in_studio or (location[:1] == ("hooks",) and location[2:3] == ("secrets",))


def _in_clear(document: Document, references: Mapping[Location, str]) -> Iterator[Location]:
    """Yield where a secret stands in the file itself."""
    places: list[Location] = [
        ("hooks", name, "secrets", index)
        for name, hook in document.hooks.items()
        for index in range(len(hook.secrets))
    ]
    if document.studio is not None:
        places += [("studio", key) for key in ("token", "management_token") if getattr(document.studio, key)]
    return (place for place in places if place not in references)


def _open_files(written: Written, document: Document, resolution: Resolution) -> Iterator[Problem]:
    """Yield the secrets that stand in clear in a file that every user can read."""
    for location in _in_clear(document, resolution.references):
        file = written.file(location)
        if file.stat().st_mode & stat.S_IROTH:
            yield Problem(
                location,
                f"the secret stands in clear in a file that every user can read; run chmod 600 "
                f"{quoted(file)}, or write credential:NAME or file:PATH",
            )


def _host(name: str, section: HostSection, document: Document) -> Host:
    ssh = dict(document.ssh or ())
    port = SSH_PORT if section.port is None and not ssh["config"] else section.port
    return Host(name, **{**dict(section), **ssh, "port": port})


def _secrets(document: Document) -> Iterator[str]:
    yield from store_secrets(document.store)
    for hook in document.hooks.values():
        for secret in hook.secrets:
            yield from redaction_forms(hook.scheme, secret)
    if document.studio is not None:
        for token in filter(None, (document.studio.token, document.studio.management_token)):
            yield token
            yield quote(token, safe="")  # as it stands in a URL


def _warnings(document: Document, references: Mapping[Location, str]) -> Iterator[str]:
    studio = document.studio
    yield from document.server.warnings()
    yield from document.metrics.warnings()
    yield from site_warnings(document.sites, document.hosts, asked=bool(studio and studio.token))
    if studio is not None:
        yield from studio.warnings()
    if unverified(document.store):
        yield "store: nothing verifies that it is the right server; write ?sslmode=verify-full after the URL"
    if any(store_secrets(document.store)) and ("store",) not in references:
        yield "store: the password stands in clear; write the URL as credential:NAME or file:PATH"
    for location in _in_clear(document, references):
        yield f"{shown(location)}: the secret stands in clear; write credential:NAME or file:PATH"
    for name, hook in document.hooks.items():
        yield from hook.warnings(name)
    for index, token in enumerate(document.tokens):
        yield from token.warnings(shown(("tokens", index)))
    if not document.hooks and not document.tokens and not (studio and studio.callers):
        yield "hooks, tokens: none is configured, so only sync --local can start a sync"


def load_hook(
    path: str | Path, name: str, *, signing: bool, environ: Mapping[str, str] = os.environ
) -> tuple[Hook, Sites]:
    """Return a hook and the sites, for callers who can't read every secret; raise `ConfigurationError`.

    Only the hook's first secret is resolved, and only for `signing`; the hook then has no other one. No other
    reference is, so the caller needs neither the listener's key nor its other secrets.
    """
    path = Path(path)
    surroundings = Surroundings(path.absolute().parent, environ)
    written = read_all(path, surroundings)
    entry = _hook_entry(written.tree.get("hooks"), name)
    secrets = entry.pop("secrets", None)
    if isinstance(secrets, list):
        secrets = secrets[:1]
    if signing:
        entry["secrets"] = secrets
    resolution = resolve({"sites": written.tree.get("sites"), "hooks": {name: entry}}, surroundings)
    if resolution.problems:
        text = "; ".join(problem.line(written.show) for problem in resolution.problems)
        raise ConfigurationError(
            f"{path}: {text}.",
            remedy="run this as a user who can read it, or name the secret with --secret file:PATH",
        )
    # The shape requires a secret. One that isn't for signing stays a reference, and the rules skip it.
    entry["secrets"] = secrets
    checked = check(resolution.tree, required=())
    section = checked.document.hooks.get(name)
    broken = section.broken(("hooks", name)) if section else ()
    problems = [*checked.problems, *(each for each in broken if signing or not _secret(each.location))]
    if section is None or problems:
        raise refusal(path, problems, written.show)
    hook = section.hook(name, resolution.references)
    return (hook if signing else replace(hook, secrets=())), built_sites(checked.document.sites)


def _hook_entry(hooks: Any, name: str) -> dict[str, Any]:
    entry = hooks.get(name) if isinstance(hooks, dict) else None
    if not isinstance(entry, dict):
        known = ", ".join(hooks) if isinstance(hooks, dict) and hooks else "none"
        raise ConfigurationError("Unknown hook.", remedy=f"name a configured one: {known}")
    return entry
