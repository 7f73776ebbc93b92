"""What is wrong in a configuration, each problem with its place and what to write instead.

No text here shows a value of the configuration: it may be a secret, or one that was pasted into the wrong
line. Only keys, which make up the place, and the words that this program knows are shown.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from listener.errors import ConfigurationError

Location = tuple[str | int, ...]
"""The keys and list positions that lead to a setting."""

LONGEST_KEY = 80
"""Characters of a key that are shown."""
MOST_SHOWN = 50
"""Problems that one error lists; it counts the rest."""
MOST_NAMES = 20
"""Names that a hint lists."""
MOST_COMPARED = 500
"""Names that a hint compares: more would take seconds."""

OTHER = "\0"
"""Where a problem's text names its other place."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*/@-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to write instead."""

    location: Location
    text: str
    other: Location = ()
    """The place that stands in the text for `OTHER`."""
    meant: tuple[str, Collection[str]] | None = None
    """A word that is not known, and those that are. The hint is made only for problems that are shown."""
    file: Path | None = None
    """The included file, for what is wrong with the file itself."""

    def __str__(self) -> str:
        return self.line(shown)

    def place(self, show: Callable[[Location], str]) -> str:
        """Return its place, with the included file; `show` returns a place as text."""
        return f"{quoted(self.file)}: {shown(self.location)}" if self.file else show(self.location)

    def line(self, show: Callable[[Location], str]) -> str:
        """Return the problem on one line; `show` returns a place as text."""
        text = self.text.replace(OTHER, show(self.other)) if self.other else self.text
        return f"{self.place(show)}: {text}" + (f"; {nearest(*self.meant)}" if self.meant else "")


def shown(location: Location) -> str:
    """Return a place as a path: `sites.mysite.environments.staging.policy`; a key with a dot is quoted."""
    return ".".join(_shown_step(step) for step in location) or "(the whole file)"


def _shown_step(step: str | int) -> str:
    text = str(step)
    if len(text) > LONGEST_KEY:
        text = text[:LONGEST_KEY] + "…"
    return text if _PLAIN_KEY.fullmatch(text) else json.dumps(text)


def quoted(path: Path) -> str:
    """Return a path for a message, on one line whatever characters it has."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def nearest(word: str, known: Collection[str]) -> str:
    """Return a hint: the known word that was probably meant, and the known words, as far as they fit."""
    import difflib  # noqa: PLC0415 (only an error needs it)

    if not known:
        return "none is configured"
    words, word = sorted(known), word[:LONGEST_KEY]
    if len(words) > MOST_COMPARED:
        alike = [each for each in words if each[:2] == word[:2] and abs(len(each) - len(word)) <= 1]
    else:
        alike = words
    close = difflib.get_close_matches(word, alike[:MOST_COMPARED], n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    rest = f" and {len(words) - MOST_NAMES} more" if len(words) > MOST_NAMES else ""
    return f"{meant}Known: {', '.join(words[:MOST_NAMES])}{rest}"


def exposed(location: Location, path: Path) -> Problem:
    """Return the problem of a file that users other than its owner can open."""
    return Problem(location, f"other users can open {quoted(path)}; run chmod 600 {quoted(path)}")


def refusal(
    path: Path, problems: Iterable[Problem], show: Callable[[Location], str] = shown
) -> ConfigurationError:
    """Return the error that lists the problems of a configuration, one a line, ordered by place."""
    found = {(problem.place(show), problem.text): problem for problem in problems}
    lines = [found[key].line(show) for key in sorted(found)[:MOST_SHOWN]]
    if len(found) > MOST_SHOWN:
        lines.append(f"and {len(found) - MOST_SHOWN} more problems")
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    return ConfigurationError(
        "\n".join([f"{path}: {count}", *(f"  {line}" for line in lines)]),
        remedy="correct these settings, then run sync-staging check-config again",
    )
