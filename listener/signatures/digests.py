"""Senders that put the HMAC-SHA256 of the raw body, in hex, into a header."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from listener.signatures.scheme import EMPTY, Rejected, Request, Verdict, header_values, matching, single


@dataclass(frozen=True, slots=True)
class HexDigest:
    """A hex digest in the sender's own header."""

    header: str
    event: str
    """The header that names the event."""
    delivery: str
    """The header that names the delivery."""
    prefix: str = ""
    """The text before the digits."""
    form: bool = False
    """Whether the body may be a form. Some senders sign the form's content instead of its raw body."""
    challenge: str = ""

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether any of the secrets made the signature."""
        value = single(request.headers, self.header)
        if isinstance(value, Rejected):
            return value
        if not re.fullmatch(self.prefix.encode() + rb"[0-9a-f]{64}", value):
            return Rejected(f"{self.header} is not {self.prefix and f'{self.prefix} and '}64 hex digits")
        if not self.form and any(
            b"form" in each.lower() for each in header_values(request.headers, "Content-Type")
        ):
            return Rejected("this sender does not sign the raw form: choose application/json at the sender")
        return matching([value], [self._made(secret, request.body) for secret in secrets])

    def _made(self, secret: bytes, body: bytes) -> bytes:
        return f"{self.prefix}{hmac.new(secret, body, hashlib.sha256).hexdigest()}".encode()

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that a sender sends with a JSON body."""
        return {
            "Content-Type": "application/json",
            self.event: event,
            self.delivery: delivery,
            self.header: self._made(secret, body).decode(),
        }

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        return "" if secret.strip() else EMPTY


GITHUB = HexDigest("X-Hub-Signature-256", "X-GitHub-Event", "X-GitHub-Delivery", prefix="sha256=", form=True)
"""https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries

The header of the older sha1 signature is never read.
"""

GITEA, FORGEJO, GOGS = (
    HexDigest(f"X-{sender}-Signature", f"X-{sender}-Event", f"X-{sender}-Delivery")
    for sender in ("Gitea", "Forgejo", "Gogs")
)
"""https://docs.gitea.com/usage/repository/webhooks

Each also sends the headers of the projects that it was forked from. Only its own header is read. If the
sender has no secret, it sends the header empty.
"""

BITBUCKET = HexDigest("X-Hub-Signature", "X-Event-Key", "X-Request-Id", prefix="sha256=")
"""Cloud: https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/
Data Center: https://confluence.atlassian.com/bitbucketserver/manage-webhooks-938025878.html
"""
