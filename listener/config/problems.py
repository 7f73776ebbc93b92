"""What is wrong in a configuration file, each with its place and what to write instead.

No text here ever shows a value from the file: any of them may be a secret, or one pasted into the wrong line.
Only keys, which make up the place, and the words that this program knows are shown.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from listener.errors import ConfigurationError

Location = tuple[str | int, ...]
"""The keys and list positions that lead to a setting."""

LONGEST_KEY = 80
"""Characters of a key that are shown."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*/@-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to write instead."""

    location: Location
    text: str

    def __str__(self) -> str:
        return f"{shown(self.location)}: {self.text}"


def shown(location: Location) -> str:
    """Return a place as a path: `sites.mysite.environments.staging.policy`; a key with a dot is quoted."""
    return ".".join(_shown_step(step) for step in location) or "(the whole file)"


def _shown_step(step: str | int) -> str:
    text = str(step)
    if len(text) > LONGEST_KEY:
        text = text[:LONGEST_KEY] + "…"
    return text if _PLAIN_KEY.fullmatch(text) else json.dumps(text)


def quoted(path: Path) -> str:
    """Return a path for a message, on one line whatever is in it."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that was probably meant, and the list of all."""
    words = sorted(known)
    if not words:
        return "none is configured"
    import difflib  # noqa: PLC0415 (most callers need no hint)

    close = difflib.get_close_matches(word[:LONGEST_KEY], words, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}Known: {', '.join(words)}"


def exposed(location: Location, path: Path) -> Problem:
    """Return the problem of a file that others than its owner may open."""
    return Problem(location, f"others than its owner may open {quoted(path)}; run chmod 600 {quoted(path)}")


def refusal(path: Path, problems: Iterable[Problem]) -> ConfigurationError:
    """Return the error that lists every problem of a file, one a line, in the order of their places."""
    lines = sorted({str(problem) for problem in problems})
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return ConfigurationError(
        "\n".join([f"{path}: {count}", *(f"  {line}" for line in lines)]),
        remedy="correct these settings, then run sync-staging check-config again",
    )
