"""The numbered migrations of a database's room."""

import re
from importlib.resources import files


def migrations(package: str) -> dict[int, str]:
    """Return the SQL of every migration of a package by its number."""
    found = {}
    for file in files(package).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", file.name):
            found[int(match[1])] = file.read_text(encoding="utf-8")
    return found
