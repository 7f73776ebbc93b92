"""What is stored of a delivery: some headers and the facts, never a signature or a credential."""

from collections.abc import Mapping
from typing import Any

from listener.deliveries.delivery import Change, Delivery, Facts
from listener.deliveries.payloads import excerpt

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

_KEPT = {name.encode(): name for name in KEPT_HEADERS}

CHANGES_MOST = 16
"""Pushed refs that are stored."""

KEPT_MOST = 255
"""Characters of a stored fact. No configured ref or name is longer."""


def kept_headers(delivery: Delivery) -> dict[str, str]:
    """Return the headers to store with a delivery."""
    found: dict[str, str] = {}
    for name, value in delivery.headers:
        kept = _KEPT.get(name.lower())
        if kept is not None and kept not in found:
            found[kept] = excerpt(value.decode("latin-1"))
    return found


def kept_facts(facts: Facts) -> dict[str, Any]:
    """Return the facts to store with a delivery; long texts are cut short."""
    kept = _short(facts)
    if facts.changes is not None:
        kept["changes"] = [_short(change) for change in facts.changes[:CHANGES_MOST]]
    return kept


def facts_of(kept: Mapping[str, Any]) -> Facts:
    """Return facts from their stored form."""
    changes = kept["changes"]
    pushed = None if changes is None else tuple(Change(**each) for each in changes)
    return Facts(**{**kept, "changes": pushed})


def _short(said: Facts | Change) -> dict[str, Any]:
    """Return the fields by name; long texts are cut short."""
    found = {}
    for name in said.__slots__:
        value = getattr(said, name)
        found[name] = excerpt(value, KEPT_MOST) if isinstance(value, str) else value
    return found
