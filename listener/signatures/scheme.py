"""The input and the answer of every verifier, and the rules that all of them follow."""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
"""Names (in any case) and values, in order, duplicates included."""


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a delivery that a verifier looks at."""

    headers: Headers
    body: bytes
    secret: bytes = field(default=b"", repr=False)
    """The text behind the hook's name in the path; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The signature is valid."""

    secret: int
    """The index of the secret that it was made with."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The signature is not valid."""

    reason: str


Verdict = Accepted | Rejected

EMPTY = "is empty, so anybody can guess it; write a secret of random characters"
WRONG_SECRET = Rejected("the signature is not made with a secret of this hook")


class Scheme(Protocol):
    """One way in which senders sign."""

    @property
    def challenge(self) -> str:
        """The WWW-Authenticate header of a refusal; empty for schemes that are not HTTP authentication."""

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether any of the secrets made the signature; `now` is in Unix seconds."""

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that a sender sends with a JSON body."""

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret; empty for a valid one."""


def header_values(headers: Headers, name: str) -> list[bytes]:
    """Return every value of a header."""
    wanted, length = name.lower().encode(), len(name)
    return [value for key, value in headers if len(key) == length and key.lower() == wanted]


def single(headers: Headers, name: str) -> bytes | Rejected:
    """Return the value of a header that must be there exactly once and must not be empty."""
    found = header_values(headers, name)
    if not found:
        return Rejected(f"{name} is missing")
    if len(found) > 1:
        return Rejected(f"{name} was sent {len(found)} times")
    return found[0] or Rejected(f"{name} is empty")


def matching(presented: Sequence[bytes], expected: Sequence[bytes]) -> Verdict:
    """Return which secret made any of the presented signatures; `expected` has the signature of each secret.

    Both are compared as text, as in the header: another spelling of the same digest does not match. An empty
    expectation never matches. Every pair is compared, so that the time does not depend on which one matches.
    """
    found = None
    for index, each in enumerate(expected):
        for text in presented:
            if hmac.compare_digest(text, each) and each:
                found = index
    return WRONG_SECRET if found is None else Accepted(found)


_SECONDS = re.compile(rb"[1-9][0-9]{0,11}")
"""One spelling only, because the text itself is signed."""


def timestamp_fault(timestamp: bytes, now: float, tolerance: float) -> str:
    """Return what is wrong with a signed timestamp at `now` (Unix seconds); empty for a valid one."""
    if not _SECONDS.fullmatch(timestamp):
        return "is not a number of seconds"
    if abs(now - int(timestamp)) > tolerance:
        return f"is more than {tolerance:g} s off"
    return ""
