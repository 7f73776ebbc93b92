"""Reads a configuration file: YAML, restricted to what a configuration needs.

libyaml parses; this module builds maps, lists and values from its events, and refuses the rest. Scalars
follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so `no`, `on`, a timestamp,
`22:30` and `0755` stay text. Tags, anchors, aliases and repeated keys are refused. Size, depth and number of
values are bounded. libyaml's own messages quote nothing from the file, so no message here shows a value.

`include` names a folder of further files. They are read by the same rules, and add hosts, sites, hooks and
tokens. Every other setting stands in the main file alone.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from listener.config.problems import Location, Problem, quoted, shown
from listener.config.references import Surroundings, resolve
from listener.errors import ConfigurationError

LARGEST = 16 << 20
"""Bytes of a file."""
DEEPEST = 20
"""Maps and lists inside each other."""
MOST_VALUES = 1_000_000
"""Values, maps and lists in a file."""

MAPS = ("hosts", "sites", "hooks")
"""The sections that map names to entries. Included files may contain them."""
PARTS = (*MAPS, "tokens")
"""All that an included file may contain."""

ENDINGS = (".yaml", ".yml")
MOST_FILES = 20_000

_MOVE = "move it out of the folder that include names"

EXAMPLE = "config/listener.example.yaml"
_LIKE = f"write it like {EXAMPLE}"

_NAMED = "name the YAML file with --config"
_LARGE = f"the configuration is larger than {LARGEST >> 20} MiB"
_SYNTAX = "correct the YAML there; put a value with special characters in quotes"

_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _Mistake(yaml.MarkedYAMLError):
    """What this reader refuses, beside what libyaml does."""


def read(path: Path, room: int = LARGEST, remedy: str = _NAMED) -> dict[str, Any]:
    """Return the content of a file of at most `room` bytes.

    Raise `ConfigurationError` if it can't be read or isn't a YAML map; `remedy` is for what isn't a file.
    """
    text = _text(path, room, remedy)
    return _tree(
        path, text, None, _LIKE if remedy == _NAMED else f"write {', '.join(PARTS)} into it, or {remedy}"
    )


def read_part(path: Path, key: str) -> Any:
    """Return what stands at a key of the top level; None if it is absent. The rest of the file isn't read."""
    return _tree(path, _text(path, LARGEST, _NAMED), key, _LIKE).get(key)


def _tree(path: Path, text: str, last: str | None, remedy: str) -> dict[str, Any]:
    try:
        tree = _Reader(text).document(last)
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        fault = f"{quoted(path)}: line {line}, column {column}: the character is not allowed in YAML."
    except yaml.MarkedYAMLError as error:
        fault = f"{quoted(path)}: {_where(error.problem_mark)}{error.problem}."
    else:
        if isinstance(tree, dict):
            return tree
        fault = f"{quoted(path)} is empty." if tree is None else f"{quoted(path)} isn't a map of settings."
        raise ConfigurationError(fault, remedy=remedy)
    raise ConfigurationError(fault, remedy=_SYNTAX)


def _text(path: Path, room: int, remedy: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"{quoted(path)} is not a file.", remedy=remedy)
        with path.open("rb") as file:
            content = file.read(room + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{quoted(path)} does not exist.", remedy=f"{_LIKE}, or {remedy}") from None
    except OSError as error:
        raise ConfigurationError(
            f"{quoted(path)} can't be read: {error.strerror}.",
            remedy="let the user that the listener runs as read the file and enter its folders",
        ) from None
    if len(content) > room:
        raise ConfigurationError(f"{quoted(path)}: {_LARGE}.", remedy=remedy)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{quoted(path)}: the byte at offset {error.start} is not UTF-8.", remedy="save the file as UTF-8"
        ) from None


class _Reader:
    """Builds maps, lists and values from the events of one document."""

    def __init__(self, text: str) -> None:
        self._next: Any = CParser(text).get_event
        self._left = MOST_VALUES

    def document(self, last: str | None) -> Any:
        """Return the document, at most up to the value of its key `last`; None for an empty file."""
        self._next()  # the stream begins
        if self._next().__class__ is StreamEndEvent:
            return None
        value = self._value(self._next(), 0, last)
        if last is not None and isinstance(value, dict) and last in value:
            return value
        while (event := self._next()).__class__ is not StreamEndEvent:
            if event.__class__ is not DocumentEndEvent:
                _refuse(event, "another document begins here; write one document")
        return value

    def _value(self, event: Any, depth: int, last: str | None = None) -> Any:
        """Return the value that begins with an event. Of a map, nothing after the key `last` is read."""
        self._left -= 1
        if not self._left:
            _refuse(event, f"more than {MOST_VALUES:,} values")
        kind = event.__class__
        if kind is AliasEvent or event.anchor is not None:
            _refuse(event, "anchors (&name) and aliases (*name) are not supported")
        if event.tag is not None:
            _refuse(event, "tags (!name) are not supported")
        if kind is ScalarEvent:
            return event.value if event.style else _scalar(event.value)
        if depth == DEEPEST:
            _refuse(event, f"more than {DEEPEST} levels deep")
        return self._map(depth, last) if kind is MappingStartEvent else self._list(depth)

    def _map(self, depth: int, last: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {}
        while (event := self._next()).__class__ is not MappingEndEvent:
            if event.__class__ is SequenceStartEvent or event.__class__ is MappingStartEvent:
                _refuse(event, "a map or list can't be a key")
            if event.__class__ is AliasEvent or event.anchor is not None or event.tag is not None:
                self._value(event, depth)  # It refuses them.
            key = event.value
            if key in content:
                _refuse(event, f"the key {shown((key,))} appears twice in its map")
            content[key] = self._value(self._next(), depth + 1)
            if key == last:
                break
        return content

    def _list(self, depth: int) -> list[Any]:
        items = []
        while (event := self._next()).__class__ is not SequenceEndEvent:
            items.append(self._value(event, depth + 1))
        return items


def _scalar(text: str) -> Any:
    """Return what text without quotes stands for. Numbers of more than 18 digits stay text."""
    if text in _WORDS:
        return _WORDS[text]
    number = _NUMBER.fullmatch(text)
    if not number:
        return text
    return float(text) if number[1] else int(text)


def _refuse(event: Any, text: str) -> NoReturn:
    raise _Mistake(problem=text, problem_mark=event.start_mark)


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


@dataclass(slots=True)
class Written:
    """What the files of a configuration say together, and which of them says it."""

    path: Path
    tree: dict[str, Any]
    folder: Path | None = None
    """The folder of included files."""
    modes: dict[Path, int] = field(default_factory=dict)
    """By each included file, its mode, in the order in which the files are read."""
    links: list[Path] = field(default_factory=list)
    """The included files that are symbolic links."""
    problems: list[Problem] = field(default_factory=list)
    origins: dict[Location, tuple[Path, Location]] = field(default_factory=dict)
    """Of each part from an included file, that file and the part's place there."""

    def show(self, location: Location) -> str:
        """Return a place for a message, with the included file that it is in."""
        if location[:2] not in self.origins:
            return shown(location)
        file, place = self.origins[location[:2]]
        return f"{quoted(file)}: {shown((*place, *location[2:]))}"

    def file(self, location: Location) -> Path:
        """Return the file that a place is in."""
        return self.origins.get(location[:2], (self.path, ()))[0]


def read_all(path: Path, surroundings: Surroundings) -> Written:
    """Read a configuration file and the files that it includes; raise `ConfigurationError`."""
    written = Written(path, read(path))
    include = written.tree.get("include")
    if not isinstance(include, str):
        return written  # The check of its shape tells what is wrong with anything else.
    resolution = resolve({"include": include}, surroundings)
    if resolution.problems:
        return written  # They are found again, with all the others.
    written.folder = Path(resolution.tree["include"])
    room = LARGEST - path.stat().st_size
    for file in files_in(written.folder):
        _merge(written, file, read(file, max(room, 0), _MOVE))
        room -= _look_at(file, written)
    return written


def _look_at(file: Path, written: Written) -> int:
    """Note the mode of an included file, and whether it is a link; return its size."""
    try:
        found = file.lstat()
        if stat.S_ISLNK(found.st_mode):
            written.links.append(file)
            found = file.stat()
    except OSError:
        raise ConfigurationError(
            f"{quoted(file)} was removed while it was read.",
            remedy="try again when nobody changes the folder",
        ) from None
    written.modes[file] = found.st_mode
    return found.st_size


def files_in(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, by name. Hidden files are other programs' own."""
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if each.name.endswith(ENDINGS) and each.name[0] != "."]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a path"
        raise ConfigurationError(
            f"include: the folder {quoted(folder)} can't be read: {why}.",
            remedy="create it, let the listener's user read it, or remove the setting include",
        ) from None
    if len(names) > MOST_FILES:
        raise ConfigurationError(
            f"include: the folder {quoted(folder)} has more than {MOST_FILES:,} files.",
            remedy="put several sites in one file",
        )
    return [folder / name for name in sorted(names)]


def _merge(written: Written, file: Path, content: dict[str, Any]) -> None:
    """Add what an included file says."""
    for key, part in content.items():
        kind: type = dict if key in MAPS else list
        if key not in PARTS:
            main = quoted(written.path)
            text = f"can't stand in an included file, only {', '.join(PARTS)} can; write it in {main}"
            written.problems.append(Problem((key,), text, file=file))
        elif not isinstance(part, kind):
            text = f"is not a {'map' if kind is dict else 'list'}; write one, or remove it"
            written.problems.append(Problem((key,), text, file=file))
        else:
            together = written.tree.setdefault(key, kind())
            if isinstance(together, kind):  # The check of its shape tells of anything else in the main file.
                written.problems += _added(written, together, file, key, part)


def _added(written: Written, together: Any, file: Path, key: str, part: Any) -> Iterator[Problem]:
    if isinstance(part, list):
        for index, value in enumerate(part):
            written.origins[key, len(together)] = file, (key, index)
            together.append(value)
        return
    for name, value in part.items():
        if name in together:
            other = quoted(written.file((key, name)))
            yield Problem((key, name), f"is in {other} too; remove one of them", file=file)
        else:
            written.origins[key, name] = file, (key, name)
            together[name] = value
