"""Reads a configuration file: YAML, and no more of it than a configuration needs.

Scalars follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so that `no`, `on`, a
timestamp, `22:30` and `0755` stay the text that they look like. Tags, aliases and repeated keys are refused,
size and depth are bounded. What PyYAML's own messages quote from the file may be a secret:
it is cut out.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from listener.config.problems import shown
from listener.errors import ConfigurationError

LARGEST = 1 << 20
"""Bytes."""
DEEPEST = 20
"""Maps and lists inside each other."""

EXAMPLE = "config/listener.example.yaml"

_SYNTAX = "correct the YAML there; a value with special characters wants quotes"

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")

_QUOTED = re.compile(r"""(['"])(.*?)\1""")
_HARMLESS = re.compile(r"<[a-z ]+>|.{0,2}")
"""What PyYAML may quote: a kind of token, such as <scalar>, or one character."""


class _Mistake(yaml.MarkedYAMLError):
    """What this reader refuses; its text shows no value."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


def read(path: Path) -> dict[str, Any]:
    """Return the file's content; raise `ConfigurationError` if it can't be read or is no YAML map."""
    text = _text(path)
    try:
        _check(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = None if node is None else _value(node)
        mistake = ""
    except (yaml.YAMLError, ValueError) as error:
        tree, mistake = None, _described(error)
    if mistake:
        raise ConfigurationError(f"{path}: {mistake}", remedy=_SYNTAX)
    if tree is None:
        raise ConfigurationError(f"{path} is empty.", remedy=f"write it after {EXAMPLE}")
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: not a map of settings.", remedy=f"write it after {EXAMPLE}")
    return tree


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path} is not a file.", remedy="name the YAML file with --config")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} does not exist.", remedy=f"write it after {EXAMPLE}, or name another file with --config"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be read: {error.strerror}.",
            remedy="let the user that the listener runs as read the file and enter its folders",
        ) from None
    if len(content) > LARGEST:
        raise ConfigurationError(
            f"{path} is larger than {LARGEST >> 20} MiB.", remedy="name the configuration file with --config"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: the byte at offset {error.start} is not UTF-8.", remedy="save the file as UTF-8"
        ) from None


def _check(text: str) -> None:
    """Raise for what is YAML, but not read here, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _Mistake(f"more than {DEEPEST} levels deep", event.start_mark)
        if getattr(event, "anchor", None) is not None:
            raise _Mistake("anchors (&name) and aliases (*name) are not read", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _Mistake("tags (!name) are not read", event.start_mark)


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _map(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    text: str = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Mistake("half of a surrogate pair is no character", node.start_mark)
    return _scalar(text) if node.style is None else text  # type: ignore[attr-defined] # of scalar nodes only


def _map(node: yaml.MappingNode) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Mistake("a map or list can't be a key", key.start_mark)
        if key.value in content:
            raise _Mistake(f"the key {shown((key.value,))} stands twice in its map", key.start_mark)
        content[key.value] = _value(value)
    return content


def _scalar(text: str) -> Any:
    """Return what text without quotes stands for. Numbers of more than 18 digits stay text."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _described(error: yaml.YAMLError | ValueError) -> str:
    """Return where the YAML is wrong and, as far as it quotes nothing, why."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character at offset {error.position} is not allowed in YAML."
    if not isinstance(error, yaml.MarkedYAMLError):
        return "a number or an escaped character that YAML does not have."
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or "not YAML"
    return f"{where}{problem if isinstance(error, _Mistake) else _QUOTED.sub(_harmless, problem)}."


def _harmless(quoted: re.Match[str]) -> str:
    return quoted[0] if _HARMLESS.fullmatch(quoted[2]) else "…"
