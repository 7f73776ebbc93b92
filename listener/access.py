"""Who may do what: tokens, their roles, and the sites they cover."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a token's bearer is."""

    ADMIN = "admin"
    """May do everything, on every site."""
    MEMBER = "member"
    """May read, sync, retry, hold and release its named sites."""


@dataclass(frozen=True, slots=True)
class Token:
    """An API credential, known only by the hash of its text."""

    name: str
    sha256: str
    """Lower-case hex SHA-256 of the token's text."""
    role: Role
    sites: frozenset[str] = frozenset()
    expires: float | None = None
    """Unix seconds."""

    def expired(self, now: float) -> bool:
        """Return whether its time is over."""
        return self.expires is not None and now >= self.expires

    @property
    def admin(self) -> bool:
        """Whether the bearer may do everything."""
        return self.role is Role.ADMIN

    def covers(self, site: str) -> bool:
        """Return whether the bearer may see and sync this site."""
        return self.admin or site in self.sites

    @property
    def visible(self) -> frozenset[str] | None:
        """The sites that the bearer may see; None for all."""
        return None if self.admin else self.sites


def digest(text: bytes) -> str:
    """Return what is stored of a token: the hex SHA-256 of its text (256 random bits need no salt)."""
    return hashlib.sha256(text).hexdigest()


def identify(presented: bytes, tokens: Iterable[Token], now: float) -> Token | None:
    """Return the token whose text was presented, or None if it is unknown or expired."""
    found = recognised(presented, tokens)
    return None if found is None or found.expired(now) else found


def recognised(presented: bytes, tokens: Iterable[Token]) -> Token | None:
    """Return the token whose text was presented, which may have expired; None if it is unknown.

    Every token is compared, in constant time, whichever matches.
    """
    found = None
    hashed = digest(presented).encode()
    for token in tokens:
        if hmac.compare_digest(hashed, token.sha256.encode()):
            found = token
    return found


def bearer(header: bytes) -> bytes | None:
    """Return the token of an `Authorization: Bearer` header (RFC 6750), or None."""
    scheme, _, text = header.partition(b" ")
    return text.strip() or None if scheme.lower() == b"bearer" else None
