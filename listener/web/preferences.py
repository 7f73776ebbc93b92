"""What a client prefers: how long to wait (RFC 7240), and the form of the answer (RFC 9110)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

LONGEST_WAIT = 600.0
"""Seconds that a caller may ask to wait, at most."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What is understood of the `Prefer` header."""

    respond_async: bool = False
    wait: float | None = None

    @classmethod
    def of(cls, request: web.Request) -> "Preferences":
        """Read the request's preferences. If one is given twice, the first counts."""
        respond_async, wait = False, None
        for preference in ",".join(request.headers.getall("Prefer", [])).split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            name, value = name.strip().lower(), value.strip().strip('"')
            if name == "respond-async":
                respond_async = True
            elif name == "wait" and wait is None and re.fullmatch(r"[0-9]{1,9}", value):
                wait = min(float(value), LONGEST_WAIT)
        return cls(respond_async, wait)

    @property
    def applied(self) -> dict[str, str]:
        """The headers that say which preferences were used, and that the answer depends on them."""
        headers = {"Vary": "Accept, Prefer"}
        said = ["respond-async"] if self.respond_async else []
        if self.wait is not None:
            said.append(f"wait={self.wait:.0f}")
        if said:
            headers["Preference-Applied"] = ", ".join(said)
        return headers


def preferred(request: web.Request, offered: Sequence[str]) -> str:
    """Return the offered media type that the client prefers; the first one if it has no preference."""
    ranges = [_media_range(text) for text in ",".join(request.headers.getall("Accept", [])).split(",")]
    weights = [_weight(media_type, ranges) for media_type in offered]
    best = max(weights)
    return offered[weights.index(best)] if best > 0 else offered[0]


def _media_range(text: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if re.fullmatch(r"q=(0(\.[0-9]{0,3})?|1(\.0{0,3})?)", parameter):
            return media_type, float(parameter[2:])
    return media_type, 1.0


def _weight(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the weight of the most specific range that covers the media type; 0 if none does."""
    for covering in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        for name, weight in ranges:
            if name == covering:
                return weight
    return 0.0
