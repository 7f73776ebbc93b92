"""What is stored of a delivery: listed headers and the facts; never a signature, never a credential."""

from dataclasses import asdict
from typing import Any

from listener.deliveries.delivery import Delivery, Facts
from listener.deliveries.payloads import told

KEPT_HEADERS = (
    "content-type",
    "user-agent",
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-gitlab-event",
    "x-gitlab-instance",
    "idempotency-key",
    "x-gitea-event",
    "x-gitea-delivery",
    "x-forgejo-event",
    "x-forgejo-delivery",
    "x-gogs-event",
    "x-gogs-delivery",
    "x-event-key",
    "x-request-uuid",
    "x-request-id",
    "x-attempt-number",
    "webhook-id",
    "webhook-timestamp",
)
"""The headers that are stored with a delivery."""

CHANGES_MOST = 16
"""Pushed refs that are stored."""


def kept_headers(delivery: Delivery) -> dict[str, str]:
    """Return the headers to store with a delivery."""
    found = {name: delivery.values(name) for name in KEPT_HEADERS}
    return {name: told(values[0].decode("latin-1")) for name, values in found.items() if values}


def kept_facts(facts: Facts) -> dict[str, Any]:
    """Return the facts to store with a delivery: no text of a sender's is kept at any length."""
    kept = asdict(facts)
    if facts.changes is not None:
        kept["changes"] = [_short(asdict(change)) for change in facts.changes[:CHANGES_MOST]]
    return _short(kept)


def _short(values: dict[str, Any]) -> dict[str, Any]:
    return {name: told(value) if isinstance(value, str) else value for name, value in values.items()}
