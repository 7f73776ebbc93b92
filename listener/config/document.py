"""A whole configuration: its shape, and what is wrong with the shape.

Pydantic's own messages are not used: they name the value that was refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from listener.config.hooks import HookSection
from listener.config.names import RULE, Name, SiteId, StoreUrl
from listener.config.problems import Location, Problem
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
from listener.config.sites import SiteSection


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
MAPS = ("hosts", "sites", "hooks")
"""Maps whose entries are judged one by one: a wrong one is left out, and the rules go on with the others."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration's shape: what is right of it, and what is wrong."""

    document: Document
    problems: list[Problem]
    left_out: frozenset[Location]
    """The sections, and the entries of maps, whose shape is wrong."""

    def names(self, key: str) -> set[str]:
        """Return the names in a map, those of wrong entries too: they can be referred to."""
        return {
            *getattr(self.document, key),
            *(str(at[1]) for at in self.left_out if at[0] == key and at[1:]),
        }


def check(tree: Mapping[str, Any]) -> Checked:
    """Check the shape of a configuration."""
    try:
        return Checked(Document.model_validate(tree), [], frozenset())
    except ValidationError as error:
        problems = [_problem(dict(fault)) for fault in error.errors(include_url=False)]
    left_out = frozenset(each.location[: 2 if each.location[0] in MAPS else 1] for each in problems)
    right = {
        key: {name: entry for name, entry in value.items() if (key, name) not in left_out}
        if key in MAPS
        else value
        for key, value in tree.items()
        if (key,) not in left_out
    }
    return Checked(Document.model_validate(right), problems, left_out)


def missing(tree: Mapping[str, Any], left_out: frozenset[Location]) -> list[Problem]:
    """Return the required sections that are missing or empty."""
    found = []
    for key in REQUIRED:
        if (key,) not in left_out and not tree.get(key):
            verb = "is missing:" if tree.get(key) is None else "is empty: write"
            found.append(Problem((key,), f"{verb} {Document.model_fields[key].description}"))
    return found


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
