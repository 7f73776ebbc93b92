"""Signed timestamps: how they must be spelt, and how far off they may be."""

import re

_SECONDS = re.compile(rb"[1-9][0-9]{0,11}")
"""One spelling only: the text is part of what is signed."""


def fault_of(timestamp: bytes, now: float, tolerance: float) -> str:
    """Return what is wrong with a timestamp at `now` (Unix seconds); empty if nothing is."""
    if not _SECONDS.fullmatch(timestamp):
        return "is not a number of seconds"
    if abs(now - int(timestamp)) > tolerance:
        return f"is more than {tolerance:g} s off"
    return ""
