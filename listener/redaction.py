"""Makes a text safe to be written down: no configured secret in it, and nothing that a terminal obeys."""

from collections.abc import Iterable, Mapping
from json import JSONEncoder
from typing import Any

REDACTED = "[redacted]"


class Cleaner:
    """Makes values safe to be written down.

    Known secrets are taken out. Characters that could move a terminal's cursor, hide text or break a line are
    escaped.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: a secret may be part of another one, whose rest would stay.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self._encode = JSONEncoder(ensure_ascii=False, default=self).encode

    def __call__(self, value: Any) -> Any:
        """Return `value` with every text in it made safe."""
        match value:
            case str():
                return self._text(value)
            case Mapping():
                return {self._text(str(key)): self(each) for key, each in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self(each) for each in value]
            case None | bool() | int() | float():
                return value
            case _:
                return self._text(str(value))

    def json(self, values: Mapping[str, Any]) -> str:
        """Return values as one line of JSON, with every text in them made safe.

        Most lines need no change, so the encoded line is checked whole, and cleaned value by value only if it
        holds a secret or a character that JSON or we escape. A secret with such a character can't be missed:
        the line then holds a backslash.
        """
        text = self._encode(values)
        if "\\" in text or not text.isprintable() or any(secret in text for secret in self._secrets):
            return self._encode(self(values))
        return text

    def _text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        if text.isprintable():
            return text
        return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
