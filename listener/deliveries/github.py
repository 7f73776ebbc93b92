"""The payloads of GitHub, and of Gitea, Forgejo and Gogs, whose pushes look the same.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
https://docs.gitea.com/usage/repository/webhooks
"""

from typing import Any
from urllib.parse import parse_qs

from listener.deliveries.delivery import Change, Delivery, Facts, Hook, Reader, Sample, Wanted
from listener.deliveries.payloads import (
    FORM,
    JSON,
    media_type,
    names_nothing,
    parse,
    read_json,
    typed,
    unread,
)
from listener.errors import MalformedDeliveryError

ESCAPES_MOST = 1_000_000
"""Percent signs in a form, at most. Each takes twenty times its size in memory while the form is parsed."""


def _github(delivery: Delivery, _: Hook) -> Facts:
    return _facts(
        delivery.id_of("X-GitHub-Delivery"),
        delivery.value("X-GitHub-Event"),
        parse(_github_json(delivery)),
    )


def _descendant(sender: str) -> Reader:
    """Return the reader of a forge with its own headers and GitHub's payload, only as JSON."""

    def read(delivery: Delivery, _: Hook) -> Facts:
        key, event = delivery.id_of(f"X-{sender}-Delivery"), delivery.value(f"X-{sender}-Event")
        return _facts(key, event, read_json(delivery))

    return Reader(read, _sample)


def _facts(key: str | None, event: str, payload: dict[str, Any]) -> Facts:
    if event != "push":
        return Facts(key=key, event=event, publish=False)
    repository = typed(payload, "repository", dict)
    after = typed(payload, "after", str) if "after" in payload else None
    gone = typed(payload, "deleted", bool) if "deleted" in payload else names_nothing(after)
    change = Change(typed(payload, "ref", str), after, deleted=gone)
    return Facts(key, event, publish=True, repository=typed(repository, "full_name", str), changes=(change,))


def _github_json(delivery: Delivery) -> bytes:
    """Return the JSON of a body, which may be wrapped in a form."""
    found = media_type(delivery)
    if found == JSON:
        return delivery.body
    if found != FORM:
        raise unread(found)
    if delivery.body.count(b"%") > ESCAPES_MOST:
        raise MalformedDeliveryError(
            "The form has too many escaped characters: choose application/json at the sender."
        )
    try:
        text = delivery.body.decode("ascii")
        form = parse_qs(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8)
    except ValueError as error:
        raise MalformedDeliveryError("The form is not valid.") from error
    payloads = form.get("payload", [])
    if len(payloads) != 1:
        raise MalformedDeliveryError(f"The form has the field payload {len(payloads)} times, not once.")
    return payloads[0].encode()


def _sample(wanted: Wanted, _: Hook) -> Sample:
    payload = {
        "ref": wanted.full_ref,
        "before": wanted.before,
        "after": wanted.after,
        "repository": {"full_name": wanted.repository},
    }
    return Sample("push", payload)


GITHUB = Reader(_github, _sample, ping=Sample("ping", {"zen": "Keep it logically awesome."}))
GITEA, FORGEJO, GOGS = map(_descendant, ("Gitea", "Forgejo", "Gogs"))
