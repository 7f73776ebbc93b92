"""A whole configuration: its shape, and the rules between its sections. Each section has its own rules.

Pydantic's own messages are not used: they name the value that was refused.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from pydantic import Field, ValidationError, field_serializer
from pydantic.fields import FieldInfo

from listener.config.file import MAPS
from listener.config.hooks import HookSection
from listener.config.names import RULE, Name, SiteId, StoreUrl, public_url
from listener.config.problems import OTHER, Location, Problem
from listener.config.references import KINDS
from listener.config.sections import (
    HistorySection,
    HostSection,
    LogSection,
    MetricsSection,
    Section,
    ServerSection,
    SshSection,
    StudioSection,
    SyncSection,
    TokenSection,
)
from listener.config.sites import SiteSection, broken_sites
from listener.sites import PLACEHOLDER, RepositoryAddress, Site, SitePattern, Sites


class Common(Section):
    """The sections that are used as they stand in the file."""

    server: ServerSection = Field(default_factory=ServerSection, description="a map of settings")
    store: StoreUrl = Field(
        "sqlite:///var/lib/sync-staging/listener.db", repr=False, description="the URL of the store"
    )
    """It may contain a password."""
    studio: StudioSection | None = Field(
        None, description="a map of url, and of token, management_token or callers"
    )
    sync: SyncSection = Field(default_factory=SyncSection, description="a map of settings")
    history: HistorySection = Field(default_factory=HistorySection, description="a map of settings")
    metrics: MetricsSection = Field(default_factory=MetricsSection, description="a map of settings")
    log: LogSection = Field(default_factory=LogSection, description="a map of settings")

    @field_serializer("store")
    def _public(self, store: str) -> str:
        return public_url(store)


class Document(Common):
    """A whole configuration, with the sections that the core's own values are built from."""

    include: str | None = Field(None, description="the path of a folder of further files")
    ssh: SshSection | None = Field(None, description="a map of known_hosts, and of identity or agent")
    hosts: dict[Name, HostSection] = Field(
        default_factory=dict, description="a map of repo hosts, at least one"
    )
    sites: dict[SiteId, SiteSection] = Field(default_factory=dict, description="a map of sites, at least one")
    hooks: dict[Name, HookSection] = Field(default_factory=dict, description="a map of webhook endpoints")
    tokens: list[TokenSection] = Field(default_factory=list, description="a list of API credentials")


REQUIRED = ("ssh", "hosts", "sites")


@dataclass(frozen=True, slots=True)
class Checked:
    """The sections with the right shape, and what is wrong with the others."""

    document: Document
    problems: list[Problem]
    left_out: frozenset[Location]
    """The sections, and the entries of maps, whose shape is wrong."""

    def names(self, key: str) -> set[str]:
        """Return the names in a map, including those of wrong entries: other sections can name them."""
        return {
            *getattr(self.document, key),
            *(str(at[1]) for at in self.left_out if at[0] == key and at[1:]),
        }


def check(tree: Mapping[str, Any], required: Iterable[str] = REQUIRED) -> Checked:
    """Check the shape of a configuration, of which some sections are required."""
    try:
        document, problems = Document.model_validate(tree), []
        left_out: frozenset[Location] = frozenset()
    except ValidationError as error:
        problems = [_problem(dict(fault)) for fault in error.errors(include_url=False)]
        left_out = frozenset(each.location[: 1 + (each.location[0] in MAPS)] for each in problems)
        document = Document.model_validate(_without(tree, left_out))
    for key in required:
        if (key,) not in left_out and not tree.get(key):
            verb = "is missing:" if tree.get(key) is None else "is empty: write"
            problems.append(Problem((key,), f"{verb} {Document.model_fields[key].description}"))
    return Checked(document, problems, left_out)


def _without(tree: Mapping[str, Any], left_out: Collection[Location]) -> dict[str, Any]:
    rest = {key: value for key, value in tree.items() if (key,) not in left_out}
    for key in rest.keys() & set(MAPS):
        rest[key] = {name: entry for name, entry in rest[key].items() if (key, name) not in left_out}
    return rest


_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a map",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a map",
    "string_type": "text",
}

_TEXTS = {
    RULE: "{text}",
    "enum": "must be {expected}",
    "greater_than_equal": "must be at least {ge}: write {description}",
    "less_than_equal": "must be at most {le}: write {description}",
    "literal_error": "must be {expected}",
    "missing": "is missing: {description}",
    "too_short": "is empty: write {description}",
}

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (dict, "a map"),
    (list, "a list"),
)


def _problem(fault: Mapping[str, Any]) -> Problem:
    location: Location = fault["loc"]
    if location and location[-1] == "[key]":
        location = location[:-1]
    setting = _setting(location)
    if fault["type"] == "extra_forbidden":
        known = _section(location[:-1])
        return Problem(
            location, "is an unknown setting", meant=(str(location[-1]), known.model_fields if known else ())
        )
    description = (setting.description or "") if setting else ""
    if fault["type"] in _TEXTS:
        text = _TEXTS[fault["type"]].format(description=description, **fault.get("ctx", {}))
        return Problem(location, text)
    wanted = _WANTED.get(fault["type"], "what belongs here")
    entry = _section(location)
    if entry is not None:
        wanted = f"a map of {', '.join(entry.model_fields)}"
    hint = _hint(wanted, fault["input"]) or (f"write {description}" if description else "")
    return Problem(location, f"is {_kind(fault['input'])}, not {wanted}" + (f"; {hint}" if hint else ""))


def _hint(wanted: str, value: Any) -> str:
    """Return what was probably meant by a value of the wrong type."""
    if wanted == "text" and isinstance(value, dict) and len(value) == 1 and KINDS.keys() & value.keys():
        return f"write {next(iter(value))}: and the name in one word, without a space after the colon"
    if wanted == "text" and isinstance(value, bool | int | float):
        return "put it in quotes"
    if wanted in {"a whole number", "true or false"} and isinstance(value, str):
        return f"write {wanted} without quotes"
    return ""


def _kind(value: Any) -> str:
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "empty")


def _setting(location: Location) -> FieldInfo | None:
    """Return the setting at a place of a file; None if there is none."""
    found = _section(location[:-1])
    return found.model_fields.get(str(location[-1])) if found and location else None


def _section(location: Location) -> type[Section] | None:
    """Return the map of settings at a place of a file; None if there is none."""
    kind: Any = Document
    for step in location:
        if isinstance(kind, type) and issubclass(kind, Section):
            entry = kind.model_fields.get(str(step))
            kind = _wanted(entry.annotation) if entry else None
        else:
            kind = get_args(kind)[-1] if get_args(kind) else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _wanted(kind: Any) -> Any:
    """Return the type of a setting that is given."""
    others = [each for each in get_args(kind) if each is not NoneType]
    return others[0] if NoneType in get_args(kind) else kind


def broken_rules(document: Document) -> Iterator[Problem]:
    """Yield every rule that the sections break, alone or together."""
    if document.ssh is not None:
        yield from document.ssh.broken()
    if document.studio is not None:
        yield from document.studio.broken()
    elif "studio" in document.model_fields_set:
        yield Problem(("studio",), "is empty; write a map of url and what Studio is asked for, or remove it")
    yield from document.sync.broken()
    yield from _circles(document.hosts)
    yield from broken_sites(document.sites, document.hosts)
    for name, hook in document.hooks.items():
        yield from hook.broken(("hooks", name))
    for index, token in enumerate(document.tokens):
        yield from token.broken(("tokens", index))
    yield from _equal_tokens(document.tokens)


def _circles(hosts: Mapping[str, HostSection]) -> Iterator[Problem]:
    """Yield the hosts that are reached through themselves, directly or through others."""
    judged: set[str] = set()
    for name in hosts:
        trail: dict[str, None] = {}
        at = name
        while at in hosts and at not in judged and at not in trail:
            trail[at] = None
            at = hosts[at].via or ""
        if at in trail:
            circle = list(trail)[list(trail).index(at) :]
            for each in circle:
                text = "leads back to the host itself; remove one via of the circle"
                yield Problem(("hosts", each, "via"), text)
        judged.update(trail)


def _equal_tokens(tokens: Iterable[TokenSection]) -> Iterator[Problem]:
    first: dict[str, Location] = {}
    for index, token in enumerate(tokens):
        for key in ("name", "sha256"):
            place: Location = ("tokens", index, key)
            other = first.setdefault(f"{key} {getattr(token, key)}", place)
            if other != place:
                yield Problem(place, f"is the same as {OTHER}; each token needs its own", other)


def broken_references(checked: Checked) -> Iterator[Problem]:
    """Yield every name of a host, site or environment that isn't configured.

    An entry with the wrong shape can be named. If a whole map has the wrong shape, its names are not checked.
    """
    if ("hosts",) not in checked.left_out:
        yield from _hosts(checked.document, checked.names("hosts"))
    if ("sites",) in checked.left_out:
        return
    yield from _sites(checked.document, checked.names("sites"))
    environments = {name for site in checked.document.sites.values() for name in site.environments}
    if not any(at[0] == "sites" for at in checked.left_out):
        for hook, section in checked.document.hooks.items():
            places = _listed(("hooks", hook, "environments"), section.environments)
            yield from _unknown(places, environments, "environment")


def _hosts(document: Document, known: Collection[str]) -> Iterator[Problem]:
    places = [
        ((*at, "host"), each.host)
        for name, site in document.sites.items()
        for at, each in site.repositories(("sites", name))
    ]
    places += [
        (("hosts", name, "via"), host.via) for name, host in document.hosts.items() if host.via is not None
    ]
    yield from _unknown(places, known, "host")


def _sites(document: Document, known: Collection[str]) -> Iterator[Problem]:
    """Yield the names of unknown sites: neither configured, nor covered by a pattern."""
    patterns = Sites.of((), (SitePattern(text, _NOWHERE) for text in known if "*" in text))
    ids = {name for name in known if "*" not in name}

    def covered(name: str) -> bool:
        return name in patterns

    named: list[tuple[Location, str]] = []
    for name, hook in document.hooks.items():
        at = ("hooks", name)
        named += [
            ((*at, "repositories", repository), site)
            for repository, site in hook.repositories.items()
            if PLACEHOLDER not in site
        ]
        named += [((*at, "site"), hook.site)] if hook.site is not None else []
        either = [pair for pair in _listed((*at, "sites"), hook.sites) if not covered(pair[1])]
        yield from _unknown(either, known, "site")
    for index, token in enumerate(document.tokens):
        named += _listed(("tokens", index, "sites"), token.sites)
    yield from _unknown([pair for pair in named if not covered(pair[1])], ids, "site")


_NOWHERE = Site("", RepositoryAddress("", ""), "", {})


def _listed(at: Location, values: Iterable[str]) -> list[tuple[Location, str]]:
    return [((*at, index), value) for index, value in enumerate(values)]


def _unknown(places: Iterable[tuple[Location, str]], known: Collection[str], noun: str) -> Iterator[Problem]:
    for location, name in places:
        if name not in known:
            yield Problem(location, f"is not a configured {noun}", meant=(name, known))
