"""Senders that sign with an HMAC in their own format, which the configuration describes."""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from listener.signatures.scheme import EMPTY, Rejected, Request, Verdict, matching, single, timestamp_fault

BODY, TIMESTAMP = "{body}", "{timestamp}"

_PARTS_MOST = 32


@dataclass(frozen=True, slots=True)
class Form:
    """Where the signature is, and what is signed."""

    header: str = "X-Signature"
    algorithm: Literal["sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    """The text before the signature."""
    signature_key: str = ""
    """The key of the signatures, if the header is a list such as `t=1700000000,v1=…`; else empty."""
    timestamp_key: str = ""
    """The key of the timestamp in that list."""
    timestamp_header: str = ""
    """Another header, which holds the timestamp."""
    signed: str = BODY
    """The text that is signed: `{body}` once, and `{timestamp}` once if there is a timestamp."""
    tolerance: float = 300.0
    """Seconds that the timestamp may differ from now, in both directions, inclusive."""

    @property
    def timed(self) -> bool:
        """Whether there is a timestamp."""
        return bool(self.timestamp_key or self.timestamp_header)


@dataclass(frozen=True, slots=True)
class Hmac:
    """An HMAC in a configured format. The configuration sets the algorithm, never the request."""

    form: Form = Form()
    challenge: str = ""

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether any secret made any of the signatures, and recently if there is a timestamp."""
        value = single(request.headers, self.form.header)
        if isinstance(value, Rejected):
            return value
        found = self._parts(value) if self.form.signature_key else self._plain(value)
        if isinstance(found, Rejected):
            return found
        signatures, listed = found
        header = self.form.timestamp_header
        timestamp = single(request.headers, header) if header else listed
        if isinstance(timestamp, Rejected):
            return timestamp
        if self.form.timed and (fault := timestamp_fault(timestamp, now, self.form.tolerance)):
            return Rejected(f"the timestamp {fault}")
        content = self._content(timestamp, request.body)
        return matching(signatures, [self._made(secret, content) for secret in secrets])

    def _plain(self, value: bytes) -> tuple[list[bytes], bytes] | Rejected:
        prefix = self.form.prefix.encode()
        if not value.startswith(prefix):
            return Rejected(f"{self.form.header} does not begin with {self.form.prefix}")
        return [value.removeprefix(prefix)], b""

    def _parts(self, value: bytes) -> tuple[list[bytes], bytes] | Rejected:
        """Return the signatures and the timestamp of a list; other keys are ignored."""
        pairs = [part.strip(b" ").partition(b"=") for part in value.split(b",")]
        if len(pairs) > _PARTS_MOST or not all(equals for _, equals, _ in pairs):
            return Rejected(f"{self.form.header} is not a list of at most {_PARTS_MOST} keys and values")
        signatures = [text for key, _, text in pairs if key == self.form.signature_key.encode()]
        timestamps = [text for key, _, text in pairs if key == self.form.timestamp_key.encode()]
        if not signatures:
            return Rejected(f"{self.form.header} has no {self.form.signature_key}")
        if self.form.timestamp_key and len(timestamps) != 1:
            return Rejected(f"{self.form.header} has {self.form.timestamp_key} {len(timestamps)} times")
        return signatures, timestamps[0] if self.form.timestamp_key else b""

    def _content(self, timestamp: bytes, body: bytes) -> bytes:
        before, _, after = self.form.signed.partition(BODY)
        around = [text.encode().replace(TIMESTAMP.encode(), timestamp) for text in (before, after)]
        return body.join(around)

    def _made(self, secret: bytes, content: bytes) -> bytes:
        digest = hmac.digest(secret, content, self.form.algorithm)
        return digest.hex().encode() if self.form.encoding == "hex" else base64.b64encode(digest)

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that the sender sends with a JSON body."""
        form, timestamp = self.form, str(int(now))
        signature = form.prefix + self._made(secret, self._content(timestamp.encode(), body)).decode()
        if form.signature_key:
            time = f"{form.timestamp_key}={timestamp}," if form.timestamp_key else ""
            signature = f"{time}{form.signature_key}={signature}"
        extra = {form.timestamp_header: timestamp} if form.timestamp_header else {}
        return {"Content-Type": "application/json", form.header: signature, **extra}

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        return "" if secret.strip() else EMPTY
