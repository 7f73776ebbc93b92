"""GitLab: a secret token that is sent in clear, or a signing token (19.0 and later).

https://docs.gitlab.com/user/project/integrations/webhooks/

Signatures are those of Standard Webhooks. Since 19.0, every delivery has its id and timestamp headers. Only
the signature header shows that a delivery is signed.
"""

from collections.abc import Sequence

from listener.signatures.scheme import (
    EMPTY,
    Accepted,
    Rejected,
    Request,
    Verdict,
    header_values,
    matching,
    single,
)
from listener.signatures.standard_webhooks import SYMMETRIC, StandardWebhooks

TOKEN = "X-Gitlab-Token"  # noqa: S105 (a header's name)

_STANDARD = StandardWebhooks()


class GitLab:
    """The signature if there is one, else the token. A secret's prefix says which of the two it is for."""

    challenge = ""

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether any of the secrets made the signature or is the token.

        If there is a signature, it must be valid; then the token does not matter.
        """
        if len(header_values(request.headers, TOKEN)) > 1:
            return Rejected(f"{TOKEN} is there more than once")
        signed = bool(header_values(request.headers, "webhook-signature"))
        fitting = [index for index, each in enumerate(secrets) if each.startswith(SYMMETRIC) == signed]
        if not fitting:
            return Rejected(
                "the delivery is signed, but the hook has no signing token (whsec_)"
                if signed
                else "the delivery is not signed, but the hook has only signing tokens"
            )
        chosen = [secrets[index] for index in fitting]
        verdict = _STANDARD.verify(chosen, request, now) if signed else _token(chosen, request)
        return Accepted(fitting[verdict.secret]) if isinstance(verdict, Accepted) else verdict

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers that GitLab sends with a body."""
        headers = {"X-Gitlab-Event": event, "Idempotency-Key": delivery}
        if secret.startswith(SYMMETRIC):
            return headers | _STANDARD.sign(secret, delivery, event, body, now)
        return headers | {"Content-Type": "application/json", TOKEN: secret.decode()}

    def fault(self, secret: bytes) -> str:
        """Return what is wrong with a configured secret."""
        if secret.startswith(SYMMETRIC):
            return _STANDARD.fault(secret)
        return "" if secret.strip() else EMPTY


def _token(secrets: Sequence[bytes], request: Request) -> Verdict:
    value = single(request.headers, TOKEN)
    return value if isinstance(value, Rejected) else matching([value], secrets)
