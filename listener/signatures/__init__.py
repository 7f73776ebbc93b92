"""Verifying deliveries: bytes, headers, secrets and a time go in; a verdict comes out.

A verifier never raises, for any headers and bytes. Everything is compared as bytes and in
constant time, and every active secret is tried. A security header that is missing, empty, repeated or joined
is rejected, even if its parts agree. A new scheme is one class, or one `HexDigest`, and one row of `SCHEMES`.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from listener.signatures import weaknesses
from listener.signatures.configured import Form, Hmac
from listener.signatures.credentials import Basic, Bearer, PathSecret
from listener.signatures.digests import BITBUCKET, FORGEJO, GITEA, GITHUB, GOGS
from listener.signatures.gitlab import GitLab
from listener.signatures.scheme import (
    WRONG_SECRET,
    Accepted,
    Headers,
    Rejected,
    Request,
    Scheme,
    Verdict,
    header_values,
)
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
    "header_values",
    "redaction_forms",
    "rejected_by_headers",
    "scheme_of",
    "shows_wrong_secret",
    "sign",
    "verify",
    "weakness",
]

PATH = "path"
"""The scheme with the secret in the path. Only callers who know the secret may learn that the hook exists."""

PASSWORD_LEAST = 8
"""Characters of a password that the log redacts on its own. Shorter ones occur in ordinary words."""

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
    """Return the scheme of that name; `form` describes the signatures of a hook of the scheme `hmac`."""
    return SCHEMES[name] if form is None else Hmac(form)


def redaction_forms(name: str, secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may appear in a text, for the log to redact them."""
    yield secret
    if isinstance(SCHEMES[name], Basic):
        yield base64.b64encode(secret.encode()).decode()
        password = secret.partition(":")[2]
        if len(password) >= PASSWORD_LEAST:
            yield password


def weakness(name: str, hook: str, secret: str) -> str:
    """Return why a hook's secret is weak, and what to do; empty for a strong one."""
    return weaknesses.weakness(name, hook, secret, password=isinstance(SCHEMES[name], Basic))


def verify(
    name: str, secrets: Sequence[bytes], request: Request, now: float, form: Form | None = None
) -> Verdict:
    """Return the verdict on a delivery to a hook with this scheme and these active secrets."""
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
    """Return whether the headers alone are enough to reject a delivery, for any body.

    Every verifier looks at the body last. So no body can change a rejection for any other reason.
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
