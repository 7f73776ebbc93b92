"""Checks a configuration's shape, and tells each fault in this program's words.

Pydantic's own messages are not used: they name the value that was refused.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from listener.config.model import Document, section, setting
from listener.config.names import RULE
from listener.config.problems import Location, Problem, nearest
from listener.config.references import KINDS

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


def check(tree: Any) -> tuple[Document | None, list[Problem]]:
    """Return the document that a tree is, or None and everything that is wrong with it."""
    try:
        return Document.model_validate(tree), []
    except ValidationError as error:
        problems = [_problem(dict(fault)) for fault in error.errors(include_url=False)]
    return None, problems


def _problem(fault: Mapping[str, Any]) -> Problem:
    location: Location = fault["loc"]
    if location and location[-1] == "[key]":
        location = location[:-1]
    return Problem(location, _text(location, fault))


def _text(location: Location, fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(location)
    if fault["type"] in _TEXTS:
        return _TEXTS[fault["type"]].format(description=_description(location), **fault.get("ctx", {}))
    return _wrong_type(location, fault)


def _unknown(location: Location) -> str:
    within = section(location[:-1])
    return f"is no setting; {nearest(str(location[-1]), within.model_fields if within else ())}"


def _wrong_type(location: Location, fault: Mapping[str, Any]) -> str:
    wanted = _WANTED.get(fault["type"], "what belongs here")
    entry = section(location)
    if entry is not None:
        wanted = f"a map of {', '.join(entry.model_fields)}"
    description = _description(location)
    hint = _hint(wanted, fault["input"]) or (f"write {description}" if description else "")
    return f"is {_kind(fault['input'])}, not {wanted}" + (f"; {hint}" if hint else "")


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
    kinds: list[tuple[type, str]] = [
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "text"),
        (dict, "a map"),
        (list, "a list"),
    ]
    return next((words for kind, words in kinds if isinstance(value, kind)), "empty")


def _description(location: Location) -> str:
    found = setting(location) if location else None
    return (found.description or "") if found else ""
