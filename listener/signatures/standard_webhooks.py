"""Standard Webhooks: `id.timestamp.body` is signed, in a list of versioned signatures in base64.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Version v1 is HMAC-SHA256 with a `whsec_` secret. Version v1a is Ed25519 with a `whpk_` public key. The
configured secret decides which version is verified, never the request.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from listener.signatures.scheme import (
    EMPTY,
    WRONG_SECRET,
    Accepted,
    Rejected,
    Request,
    Verdict,
    matching,
    single,
    timestamp_fault,
)

TOLERANCE = 300
"""Seconds that the timestamp may differ from now, in both directions, inclusive."""

SYMMETRIC, PUBLIC, PRIVATE = b"whsec_", b"whpk_", b"whsk_"

_ID = re.compile(rb"[\x21-\x2d\x2f-\x7e]{1,256}")
"""Printable, without a full stop, which separates the id from the rest."""
_KEY_BYTES = range(24, 65)
_PUBLIC_BYTES = 32
_SIGNATURES_MOST = 32


class StandardWebhooks:
    """Signatures of version v1 or v1a, depending on each secret."""

    challenge = ""

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether any of the secrets made any of the signatures recently."""
        parts = []
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            value = single(request.headers, name)
            if isinstance(value, Rejected):
                return value
            parts.append(value)
        delivery, timestamp, signatures = parts
        if not _ID.fullmatch(delivery):
            return Rejected("webhook-id is not 1 to 256 printable characters without a full stop")
        if fault := timestamp_fault(timestamp, now, TOLERANCE):
            return Rejected(f"webhook-timestamp {fault}")
        if any(entry.count(b",") > 1 for entry in signatures.split(b" ")):
            return Rejected("webhook-signature was joined from several headers")
        content = b".".join((delivery, timestamp, request.body))
        return _judged(secrets, _presented(signatures), content)

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that a sender sends with a JSON body; the body itself names the event.

        The secret of version v1a is the private key, `whsk_`.
        """
        timestamp = str(int(now))
        content = b".".join((delivery.encode(), timestamp.encode(), body))
        if secret.startswith(PRIVATE):
            key = Ed25519PrivateKey.from_private_bytes(decoded(secret, PRIVATE)[:_PUBLIC_BYTES])
            signature = b"v1a," + base64.b64encode(key.sign(content))
        else:
            signature = b"v1," + _hmac(secret, content)
        return {
            "Content-Type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature.decode(),
        }

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        if not secret.strip():
            return EMPTY
        if secret.startswith(PRIVATE):
            return "is a private key, which only the sender may have; write the public key, whpk_"
        if len(decoded(secret, SYMMETRIC)) in _KEY_BYTES or len(decoded(secret, PUBLIC)) == _PUBLIC_BYTES:
            return ""
        return (
            "is not a secret of Standard Webhooks; write whsec_ and the base64 of 24 to 64 random bytes, "
            "or whpk_ and the base64 of an Ed25519 public key"
        )


def decoded(secret: bytes, prefix: bytes) -> bytes:
    """Return the bytes of a secret with this prefix, whose padding may be missing; empty if it is invalid."""
    text = secret.removeprefix(prefix).rstrip(b"=")
    if not secret.startswith(prefix):
        return b""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""


def _presented(header: bytes) -> dict[bytes, list[bytes]]:
    """Return the signatures by version; unknown versions are ignored."""
    found: dict[bytes, list[bytes]] = {b"v1": [], b"v1a": []}
    for entry in header.split(b" ")[:_SIGNATURES_MOST]:
        version, _, text = entry.partition(b",")
        if version in found:
            found[version].append(text)
    return found


def _judged(secrets: Sequence[bytes], presented: dict[bytes, list[bytes]], content: bytes) -> Verdict:
    versions = {b"v1a" if secret.startswith(PUBLIC) else b"v1" for secret in secrets}
    if not any(presented[version] for version in versions):
        wanted = " or ".join(sorted(version.decode() for version in versions))
        return Rejected(f"webhook-signature has no signature of version {wanted}")
    verdict = matching(presented[b"v1"], [_hmac(secret, content) for secret in secrets])
    if isinstance(verdict, Accepted):
        return verdict
    for index, secret in enumerate(secrets):
        if any([_ed25519(secret, text, content) for text in presented[b"v1a"]]):  # noqa: C419 (each is looked at)
            return Accepted(index)
    return WRONG_SECRET


def _hmac(secret: bytes, content: bytes) -> bytes:
    """Return the signature of version v1 as in the header; empty for a secret of another version."""
    key = decoded(secret, SYMMETRIC)
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)) if len(key) in _KEY_BYTES else b""


def _ed25519(secret: bytes, text: bytes, content: bytes) -> bool:
    key = decoded(secret, PUBLIC)
    if len(key) != _PUBLIC_BYTES:
        return False
    try:
        signature = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content)
    except (ValueError, InvalidSignature):
        return False
    # The last digit of base64 has unused bits. Only one spelling of a signature is accepted.
    return base64.b64encode(signature) == text
