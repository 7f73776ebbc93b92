"""The numbered migrations of a database's room: which there are, and which a store still needs."""

import re
from functools import cache
from importlib.resources import files

from listener.errors import StoreTooNewError


@cache
def migrations(package: str) -> dict[int, str]:
    """Return the SQL of every migration of a package by its number, in their order."""
    found = {}
    for file in files(package).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", file.name):
            found[int(match[1])] = file.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def latest(package: str) -> int:
    """Return the number of the schema that this program writes."""
    return max(migrations(package))


def missing(package: str, version: int) -> dict[int, str]:
    """Return the migrations that a store with the schema `version` still needs, in their order.

    Raises `StoreTooNewError` if the store was written by a later program.
    """
    if version > latest(package):
        raise StoreTooNewError(
            f"The store has schema {version}. This program knows schemas up to {latest(package)}.",
            remedy="run the newer version again, or restore the copy from before the upgrade",
        )
    return {number: sql for number, sql in migrations(package).items() if number > version}
