"""All files of a configuration: the one that is named, and those in the folder that its `include` names.

Each included file has the same form and is read by the same rules. It adds hosts, sites, hooks and tokens;
every other setting stands in the main file alone.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from listener.config.file import LARGEST, read
from listener.config.problems import Location, Problem, quoted, shown
from listener.config.references import Surroundings, resolve
from listener.errors import ConfigurationError

PARTS = {"hosts": dict, "sites": dict, "hooks": dict, "tokens": list}
"""What an included file may contain, each with its type."""

ENDINGS = (".yaml", ".yml")
MOST_FILES = 20_000

_REMEDY = "move it out of the folder that include names"


@dataclass(slots=True)
class Written:
    """What the files of a configuration say together, and which of them says it."""

    path: Path
    tree: dict[str, Any]
    folder: Path | None = None
    """The folder of included files."""
    files: list[Path] = field(default_factory=list)
    """The included files, in the order in which they are read."""
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
    for file in _files_in(written.folder):
        _merge(written, file, read(file, max(room, 0), _REMEDY))
        room -= file.stat().st_size
        written.files.append(file)
    return written


def _files_in(folder: Path) -> list[Path]:
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
        kind = PARTS.get(key)
        if kind is None:
            text = f"can't stand in an included file, only {', '.join(PARTS)} can; write it in {written.path}"
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
