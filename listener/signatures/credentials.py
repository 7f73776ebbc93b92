"""Senders that sign nothing and only show a secret: HTTP Basic, a bearer token, a part of the path.

Anybody who can read one such request can send others. They need TLS all the way.
"""

import base64
import re
from collections.abc import Sequence

from listener.signatures.scheme import EMPTY, Rejected, Request, Verdict, matching, single

_AUTHORIZATION = re.compile(rb"([A-Za-z]+) ([!-~]+)")


class Basic:
    """HTTP Basic (RFC 7617), in UTF-8; the secret is `user:password`."""

    challenge = 'Basic realm="sync-staging", charset="UTF-8"'

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether the credentials are any of the secrets."""
        return _authorized("Basic", request, [base64.b64encode(secret) for secret in secrets])

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that a sender sends with a JSON body."""
        credentials = base64.b64encode(secret).decode()
        return {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        user, colon, password = secret.partition(b":")
        if not secret.strip():
            return EMPTY
        if not colon or not user or not password.strip() or re.search(rb"[\x00-\x1f\x7f]", secret):
            return "is not a user and a password; write user:password on one line"
        return ""


class Bearer:
    """A bearer token (RFC 6750)."""

    challenge = "Bearer"

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether the token is any of the secrets."""
        return _authorized("Bearer", request, secrets)

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that a sender sends with a JSON body."""
        return {"Content-Type": "application/json", "Authorization": f"Bearer {secret.decode()}"}

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        if not secret.strip():
            return EMPTY
        if not re.fullmatch(rb"[A-Za-z0-9._~+/-]+=*", secret):
            return "is not a bearer token; write only letters, digits and - . _ ~ + /"
        return ""


class PathSecret:
    """A secret behind the hook's name in the path. Every proxy on the way logs it."""

    challenge = ""
    _SHORTEST = 16

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether that part of the path is any of the secrets."""
        if not request.secret:
            return Rejected("the path has no secret")
        return matching([request.secret], secrets)

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that a sender sends with a JSON body; the secret is not among them."""
        return {"Content-Type": "application/json"}

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        if not secret.strip():
            return EMPTY
        if len(secret) < self._SHORTEST or not re.fullmatch(rb"[A-Za-z0-9_-]+", secret):
            return f"can't be part of a path; write {self._SHORTEST} or more random letters, digits, - and _"
        return ""


def _authorized(kind: str, request: Request, expected: Sequence[bytes]) -> Verdict:
    value = single(request.headers, "Authorization")
    if isinstance(value, Rejected):
        return value
    form = _AUTHORIZATION.fullmatch(value)
    if form is None or form[1].lower() != kind.lower().encode():
        return Rejected(f"Authorization is not {kind}, a space and the credentials")
    return matching([form[2]], expected)
