"""Statements with named parameters, such as `:id`, in the form in which a database takes them."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_ROW = re.compile(r"VALUES\s*\((?:\s*:\w+\s*,?)+\)")
_AT_ONCE = (*range(1, 9), 16, 32, 64)
"""The numbers of rows for which there is a statement. More of them would not stay prepared."""


def portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows in portions, each of a size for which there is a statement."""
    begin = 0
    while begin < len(rows):
        size = max(each for each in _AT_ONCE if each <= len(rows) - begin)
        yield rows[begin : begin + size]
        begin += size


@cache
def numbered(sql: str, mark: str, rows: int = 1) -> tuple[str, tuple[str, ...]]:
    """Return a statement with numbered parameters (`$1` for the mark `$`), and their names in that order.

    With several `rows`, its only parameters are those of a VALUES list, which is repeated.
    """
    names = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
    if rows > 1:
        numbers = [
            range(first + 1, first + 1 + len(names)) for first in range(0, rows * len(names), len(names))
        ]
        lists = ", ".join(f"({', '.join(f'{mark}{number}' for number in row)})" for row in numbers)
        return _ROW.sub(lambda _: f"VALUES {lists}", sql), names
    return _PARAMETER.sub(lambda match: f"{mark}{names.index(match[1]) + 1}", sql), names
