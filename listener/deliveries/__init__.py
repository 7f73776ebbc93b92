"""Deliveries: requests to a hook, and what a verified delivery says.

Each kind of sender has a reader in one of these modules, and a row in `READERS`. `selection` decides which
environments a delivery may sync.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from listener.deliveries.azure_devops import AZURE_DEVOPS
from listener.deliveries.bitbucket import BITBUCKET
from listener.deliveries.configured import OWN, STANDARD_WEBHOOKS, publishes
from listener.deliveries.delivery import (
    FORGES,
    Change,
    Delivery,
    Facts,
    Hook,
    Payload,
    Reader,
    Sample,
    Wanted,
)
from listener.deliveries.github import FORGEJO, GITEA, GITHUB, GOGS
from listener.deliveries.gitlab import GITLAB
from listener.deliveries.kept import CHANGES_MOST, KEPT_HEADERS, facts_of, kept_facts, kept_headers
from listener.deliveries.payloads import DEPTH_MOST, excerpt
from listener.deliveries.selection import Ignored, select

__all__ = [
    "CHANGES_MOST",
    "DEPTH_MOST",
    "FORGES",
    "KEPT_HEADERS",
    "READERS",
    "Change",
    "Delivery",
    "Facts",
    "Hook",
    "Ignored",
    "Payload",
    "Reader",
    "Sample",
    "Wanted",
    "excerpt",
    "kept_facts",
    "kept_headers",
    "read",
    "recall",
    "select",
]

READERS: Mapping[str, Reader] = {
    "github": GITHUB,
    "gitlab": GITLAB,
    "gitea": GITEA,
    "forgejo": FORGEJO,
    "gogs": GOGS,
    "bitbucket": BITBUCKET,
    "azure-devops": AZURE_DEVOPS,
    "standard-webhooks": STANDARD_WEBHOOKS,
    "hmac": OWN,
    "basic": OWN,
    "bearer": OWN,
    "path": OWN,
}
"""The reader of each scheme's payloads."""


def read(hook: Hook, delivery: Delivery) -> Facts:
    """Return what a verified delivery says; raise `MalformedDeliveryError`, `UnsupportedMediaError`."""
    return READERS[hook.scheme].read(delivery, hook)


def recall(hook: Hook, kept: Mapping[str, Any]) -> Facts:
    """Return what a delivery said, from its stored facts and by today's configuration of the hook."""
    facts = facts_of(kept)
    if not READERS[hook.scheme].configurable:
        return facts
    return replace(facts, publish=publishes(facts.event, hook))
