"""Verifying deliveries: bytes, headers, secrets and a time in; accepted or a reason out.

A verifier is total: whatever the headers and the bytes, it answers, and never raises. Everything is compared
as bytes and in constant time; every active secret is tried; a missing, doubled, empty or joined security
header is refused, even when its parts agree. A further scheme is one class and one row of `SCHEMES`.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
"""Names (in any case) and values, in order, duplicates included."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The signature is good."""

    secret: int
    """The index of the secret that it was made with."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The signature is not good."""

    reason: str


Verdict = Accepted | Rejected

_EMPTY = "is empty, and anybody knows that; write a secret of random characters"


class Scheme(Protocol):
    """One way in which senders sign."""

    def verify(self, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float) -> Verdict:
        """Return whether any of the secrets made the signature; `now` is in Unix seconds."""

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers with which a sender sends a JSON body."""

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret; empty if nothing is."""


class GitHub:
    """HMAC-SHA256 over the raw body, in hex.

    https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries

    The header of the older sha1 signature is never read.
    """

    _HEADER = "X-Hub-Signature-256"
    _FORM = re.compile(rb"sha256=([0-9a-f]{64})")

    def verify(self, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float) -> Verdict:
        """Return whether any of the secrets made the signature."""
        value = _single(headers, self._HEADER)
        if isinstance(value, Rejected):
            return value
        form = self._FORM.fullmatch(value)
        if form is None:
            return Rejected(f"{self._HEADER} is not sha256= and 64 hex digits")
        expected = [hmac.digest(secret, body, hashlib.sha256) for secret in secrets]
        return _matching([bytes.fromhex(form[1].decode())], expected, secrets)

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers with which a sender sends a JSON body."""
        return {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery,
            self._HEADER: f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}",
        }

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        return "" if secret.strip() else _EMPTY


class StandardWebhooks:
    """HMAC-SHA256 over `id.timestamp.body`, in base64, in a list of versioned signatures.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    _TOLERANCE = 300
    """Seconds that the timestamp may be off, both ways, inclusive."""
    _TIMESTAMP = re.compile(rb"[1-9][0-9]{0,11}")
    _ID = re.compile(rb"[\x21-\x2d\x2f-\x7e]{1,256}")
    """Printable, without a full stop: the id is joined to the rest by one."""
    _KEY_BYTES = range(24, 65)
    _SIGNATURES_MOST = 32

    def verify(self, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float) -> Verdict:
        """Return whether any of the secrets made any of the signatures, and lately."""
        parts = []
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            value = _single(headers, name)
            if isinstance(value, Rejected):
                return value
            parts.append(value)
        delivery, timestamp, signatures = parts
        if not self._ID.fullmatch(delivery):
            return Rejected("webhook-id is not 1 to 256 printable characters without a full stop")
        if not self._TIMESTAMP.fullmatch(timestamp):
            return Rejected("webhook-timestamp is not a number of seconds")
        if abs(now - int(timestamp)) > self._TOLERANCE:
            return Rejected(f"webhook-timestamp is more than {self._TOLERANCE} s off")
        presented = self._presented(signatures)
        if not presented:
            return Rejected("webhook-signature has no signature of version v1")
        content = b".".join((delivery, timestamp, body))
        keys = [self._key(secret) for secret in secrets]
        expected = [hmac.digest(key, content, hashlib.sha256) if key else b"" for key in keys]
        return _matching(presented, expected, secrets)

    def _presented(self, header: bytes) -> list[bytes]:
        """Return the signatures of our version; others are for other receivers."""
        found = []
        for entry in header.split(b" ")[: self._SIGNATURES_MOST]:
            version, _, text = entry.partition(b",")
            if version == b"v1":
                try:
                    found.append(base64.b64decode(text, validate=True))
                except binascii.Error:
                    continue
        return found

    def _key(self, secret: bytes) -> bytes:
        """Return the key in a `whsec_` secret, whose padding may be missing; empty if there is none."""
        text = secret.removeprefix(b"whsec_").rstrip(b"=")
        try:
            key = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            return b""
        return key if len(key) in self._KEY_BYTES else b""

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers with which a sender sends a JSON body, whose event the body names itself."""
        timestamp = str(int(now))
        content = b".".join((delivery.encode(), timestamp.encode(), body))
        signature = base64.b64encode(hmac.digest(self._key(secret), content, hashlib.sha256)).decode()
        return {
            "Content-Type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{signature}",
        }

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        if not secret.strip():
            return _EMPTY
        if secret.startswith(b"whsec_") and self._key(secret):
            return ""
        return "is no secret of Standard Webhooks; write whsec_ and the base64 of 24 to 64 random bytes"


SCHEMES: Mapping[str, Scheme] = {
    "github": GitHub(),
    "standard-webhooks": StandardWebhooks(),
}


def verify(scheme: str, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float) -> Verdict:
    """Return the verdict on a delivery to a hook of this scheme, with these active secrets."""
    usable = [secret for secret in secrets if not SCHEMES[scheme].fault(secret)]
    if not usable:
        return Rejected("the hook has no usable secret")
    verdict = SCHEMES[scheme].verify(usable, headers, body, now)
    if isinstance(verdict, Accepted):
        return Accepted(list(secrets).index(usable[verdict.secret]))
    return verdict


def sign(scheme: str, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
    """Return the headers with which a sender of this scheme sends a JSON body."""
    return SCHEMES[scheme].sign(secret, delivery, event, body, now)


def _single(headers: Headers, name: str) -> bytes | Rejected:
    """Return the value of a header that must be there exactly once and say something."""
    wanted = name.lower().encode()
    values = [value for key, value in headers if key.lower() == wanted]
    if not values:
        return Rejected(f"{name} is missing")
    if len(values) > 1:
        return Rejected(f"{name} is there {len(values)} times")
    return values[0] or Rejected(f"{name} is empty")


def _matching(presented: Sequence[bytes], expected: Sequence[bytes], secrets: Sequence[bytes]) -> Verdict:
    """Return which secret made any of the presented digests. Every pair is compared, whichever matches."""
    found = None
    for index in range(len(secrets)):
        for each in presented:
            if hmac.compare_digest(each, expected[index]) and expected[index]:
                found = index
    return (
        Rejected("the signature is not made with a secret of this hook") if found is None else Accepted(found)
    )
