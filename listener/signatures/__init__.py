"""Verifying deliveries: bytes, headers, secrets and a time in; accepted or a reason out.

A verifier is total: whatever the headers and the bytes, it answers, and never raises. Everything is compared
as bytes and in constant time; every active secret is tried; a missing, doubled, empty or joined security
header is refused, even when its parts agree. A further scheme is one class, or one `HexDigest`, and one row
of `SCHEMES`.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from listener.signatures import weaknesses
from listener.signatures.configured import Form, Hmac
from listener.signatures.credentials import Basic, Bearer, PathSecret
from listener.signatures.digests import BITBUCKET, FORGEJO, GITEA, GITHUB, GOGS
from listener.signatures.gitlab import GitLab
from listener.signatures.scheme import WRONG_SECRET, Accepted, Headers, Rejected, Request, Scheme, Verdict
from listener.signatures.standard_webhooks import StandardWebhooks

__all__ = [
    "PATH",
    "SCHEMES",
    "Accepted",
    "Form",
    "Headers",
    "Rejected",
    "Request",
    "Scheme",
    "Verdict",
    "redaction_forms",
    "rejected_by_headers",
    "scheme_of",
    "shows_wrong_secret",
    "sign",
    "verify",
    "weakness",
]

PATH = "path"
"""The scheme whose secret stands in the path: a hook of it is hidden from who does not know it."""

PASSWORD_LEAST = 8
"""Characters of a password that the log leaves out by itself: shorter ones would be found in every word."""

SCHEMES: Mapping[str, Scheme] = {
    "github": GITHUB,
    "gitlab": GitLab(),
    "gitea": GITEA,
    "forgejo": FORGEJO,
    "gogs": GOGS,
    "bitbucket": BITBUCKET,
    "azure-devops": Basic(),
    "standard-webhooks": StandardWebhooks(),
    "hmac": Hmac(),
    "basic": Basic(),
    "bearer": Bearer(),
    PATH: PathSecret(),
}


def scheme_of(name: str, form: Form | None = None) -> Scheme:
    """Return the scheme of that name; `form` is how a hook of the scheme `hmac` is signed."""
    return SCHEMES[name] if form is None else Hmac(form)


def redaction_forms(name: str, secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may turn up somewhere, for the log to leave them out."""
    yield secret
    if isinstance(SCHEMES[name], Basic):
        yield base64.b64encode(secret.encode()).decode()
        password = secret.partition(":")[2]
        if len(password) >= PASSWORD_LEAST:
            yield password


def weakness(name: str, hook: str, secret: str) -> str:
    """Return what is weak about a secret of a hook of this scheme, and what to do; empty for a good one."""
    return weaknesses.weakness(name, hook, secret, password=isinstance(SCHEMES[name], Basic))


def verify(
    name: str, secrets: Sequence[bytes], request: Request, now: float, form: Form | None = None
) -> Verdict:
    """Return the verdict on a delivery to a hook of this scheme, with these active secrets."""
    scheme = scheme_of(name, form)
    usable = [index for index, secret in enumerate(secrets) if not scheme.fault(secret)]
    if not usable:
        return Rejected("the hook has no usable secret")
    verdict = scheme.verify([secrets[index] for index in usable], request, now)
    return Accepted(usable[verdict.secret]) if isinstance(verdict, Accepted) else verdict


def shows_wrong_secret(name: str, verdict: Rejected) -> bool:
    """Return whether a rejected delivery showed a secret itself, as senders of this scheme do.

    Only such secrets can be guessed here, one after the other. The secret of a signature can be guessed
    anywhere, with one recorded delivery.
    """
    return verdict is WRONG_SECRET and isinstance(SCHEMES[name], Basic | Bearer | PathSecret | GitLab)


def rejected_by_headers(
    name: str, secrets: Sequence[bytes], request: Request, now: float, form: Form | None = None
) -> bool:
    """Return whether a delivery will be rejected whatever its body is, judged by its headers alone.

    Every verifier looks at the body last: what it rejects for any other reason, no body mends.
    """
    verdict = verify(name, secrets, replace(request, body=b""), now, form)
    return isinstance(verdict, Rejected) and verdict is not WRONG_SECRET


def sign(
    name: str,
    secret: bytes,
    delivery: str,
    event: str,
    body: bytes,
    now: float,
    form: Form | None = None,
) -> dict[str, str]:
    """Return the headers with which a sender of this scheme sends a JSON body."""
    return scheme_of(name, form).sign(secret, delivery, event, body, now)
