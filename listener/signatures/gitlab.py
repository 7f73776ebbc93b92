"""GitLab: a secret token that is sent as it is, or a signing token (19.0 and later).

https://docs.gitlab.com/user/project/integrations/webhooks/

Signatures are those of Standard Webhooks. Since 19.0 every delivery has their id and timestamp: only the
header of the signature says that it is signed.
"""

from collections.abc import Sequence

from listener.signatures.scheme import EMPTY, Accepted, Rejected, Request, Verdict, matching, single, values
from listener.signatures.standard_webhooks import SYMMETRIC, StandardWebhooks

TOKEN = "X-Gitlab-Token"  # noqa: S105 (a header's name)

_STANDARD = StandardWebhooks()


class GitLab:
    """A signature where there is one, else the token: a secret is for one of the two by its prefix."""

    challenge = ""

    def verify(self, secrets: Sequence[bytes], request: Request, now: float) -> Verdict:
        """Return whether any of the secrets made the signature or is the token.

        A signature that is there must verify, whatever the token says.
        """
        if len(values(request.headers, TOKEN)) > 1:
            return Rejected(f"{TOKEN} is there more than once")
        signed = bool(values(request.headers, "webhook-signature"))
        fitting = [index for index, each in enumerate(secrets) if each.startswith(SYMMETRIC) == signed]
        if not fitting:
            return Rejected(
                "it is signed, and the hook has no signing token (whsec_)"
                if signed
                else "it is not signed, and the hook has signing tokens only"
            )
        chosen = [secrets[index] for index in fitting]
        verdict = _STANDARD.verify(chosen, request, now) if signed else _token(chosen, request)
        return Accepted(fitting[verdict.secret]) if isinstance(verdict, Accepted) else verdict

    def sign(self, secret: bytes, delivery: str, event: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers with which GitLab sends a body."""
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
