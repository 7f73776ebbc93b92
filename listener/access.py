"""Who may do what: tokens, sessions, callers, their roles, and the sites they cover."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Role(StrEnum):
    """The role of a caller."""

    ADMIN = "admin"
    """May do everything, on every site."""
    MEMBER = "member"
    """May read, sync, retry, hold and release its named sites."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller."""

    name: str
    """The name in triggers and logs: a token's name, or a name with a colon, which no token has."""
    role: Role
    sites: frozenset[str] = frozenset()
    credential: str = ""
    """The kind and name of the credential, never its text."""

    @property
    def admin(self) -> bool:
        """Whether the caller may do everything."""
        return self.role is Role.ADMIN

    def covers(self, site: str) -> bool:
        """Return whether the caller may see and sync this site."""
        return self.admin or site in self.sites

    @property
    def visible(self) -> frozenset[str] | None:
        """The sites that the caller may see; None for all."""
        return None if self.admin else self.sites


@dataclass(frozen=True, slots=True)
class Token:
    """An API credential. Only the hash of its text is known here."""

    name: str
    sha256: str
    """Lower-case hex SHA-256 of the token's text."""
    role: Role
    sites: frozenset[str] = frozenset()
    expires: float | None = None
    """Unix seconds."""

    @property
    def admin(self) -> bool:
        """Whether the bearer may do everything."""
        return self.role is Role.ADMIN

    @property
    def caller(self) -> Caller:
        """The caller with this token."""
        return Caller(self.name, self.role, self.sites, f"token {self.name}")

    def valid(self, now: float) -> bool:
        """Return whether it has not expired."""
        return self.expires is None or now < self.expires


SESSIONS_MOST = 100
"""The most sessions of one token."""


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in by a token. Only the hash of its random id is known here."""

    key: str
    """Hex SHA-256 of the id."""
    token: str
    """The token's name."""
    sha256: str
    """The token's hash: a changed token ends its sessions."""
    expires: float
    """Unix seconds."""

    def token_among(self, tokens: Iterable[Token], now: float) -> Token | None:
        """Return the session's token, if both are still valid."""
        if now >= self.expires:
            return None
        mine = (self.token, self.sha256)
        return next((each for each in tokens if (each.name, each.sha256) == mine and each.valid(now)), None)


class SessionStore(Protocol):
    """Where sessions are kept. Every method may raise `StoreUnavailableError`."""

    async def begin_session(self, session: Session) -> None:
        """Store a session. Of more than `SESSIONS_MOST` of a token, the one that expires first is deleted."""

    async def session(self, key: str) -> Session | None:
        """Return the session of a key, which may have expired, or None."""

    async def end_session(self, key: str) -> None:
        """Delete a session, if there is one."""

    async def prune_sessions(self, now: float) -> int:
        """Delete expired sessions; return how many there were."""


@dataclass(frozen=True, slots=True)
class StudioCredential:
    """A credential that only Studio can verify: an access token, or a session with its XSRF token."""

    bearer: str = field(default="", repr=False)
    session: str = field(default="", repr=False)
    xsrf: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """The hash that stands for it in memory."""
        return digest(f"{self.bearer}\n{self.session}\n{self.xsrf}".encode())


class Delegation(Protocol):
    """Asks Studio who a credential belongs to."""

    async def caller(self, credential: StudioCredential, client: str) -> Caller | None:
        """Return the caller, or None if Studio does not know the credential; raise `SyncError` for no answer.

        `client` is the address that it came from. One that shows many unknown credentials is slowed down.
        """


def digest(text: bytes) -> str:
    """Return the stored form of a token: the hex SHA-256 of its text (256 random bits need no salt)."""
    return hashlib.sha256(text).hexdigest()


def find_token(presented: bytes, tokens: Iterable[Token]) -> Token | None:
    """Return the token whose text was presented, expired or not, or None.

    Every token is compared, in constant time, so that the time does not depend on which one matches.
    """
    found = None
    hashed = digest(presented).encode()
    for token in tokens:
        if hmac.compare_digest(hashed, token.sha256.encode()):
            found = token
    return found


def bearer_token(header: bytes) -> bytes | None:
    """Return the token of an `Authorization: Bearer` header (RFC 6750), or None."""
    scheme, _, text = header.partition(b" ")
    return text.strip() or None if scheme.lower() == b"bearer" else None


def basic_password(header: bytes) -> bytes | None:
    """Return the password of an `Authorization: Basic` header (RFC 7617, in UTF-8), or None.

    The user name does not matter: the password is a token, which names its owner.
    """
    form = _BASIC.fullmatch(header.strip())
    if form is None:
        return None
    try:
        decoded = base64.b64decode(form[1], validate=True)
        text = decoded.decode()
    except ValueError:
        return None
    _, colon, said = text.partition(":")
    odd = _CONTROL.search(text) or base64.b64encode(decoded) != form[1]
    return said.encode() if colon and said and not odd else None


STUDIO_TOKEN = re.compile(rb"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){3}\.[A-Za-z0-9_-]+")
"""Studio's access tokens are encrypted, in compact form with five parts (RFC 7516, 7.1). Ours never are."""

_STUDIO_COOKIE = re.compile(r"[A-Za-z0-9._!~*+/=-]{1,256}")


def studio_token(presented: bytes) -> StudioCredential | None:
    """Return a bearer token as Studio's, if it looks like one. Other tokens are never sent to Studio."""
    if not STUDIO_TOKEN.fullmatch(presented):
        return None
    return StudioCredential(bearer=presented.decode("ascii"))


def studio_session(session: str, xsrf: str, header: str) -> StudioCredential | None:
    """Return Studio's session and XSRF cookies, if the header has the value of the XSRF cookie.

    Only a page of Studio's own origin can read that cookie, and so send the header
    (https://docs.craftercms.org, Studio's APIs).
    """
    if not (_STUDIO_COOKIE.fullmatch(session) and _STUDIO_COOKIE.fullmatch(xsrf)):
        return None
    same = hmac.compare_digest(xsrf.encode(), header.encode("utf-8", "surrogateescape"))
    return StudioCredential(session=session, xsrf=xsrf) if same else None
