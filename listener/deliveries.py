"""Deliveries: one request to a hook, and what a verified one says.

The sender's reading of a payload stands here, beside the rule of who may select what. Nothing of a payload
goes further than a comparison or a look-up: a ref is compared with the configured branch, a repository or a
site id is looked up in the configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request to a hook, as it arrived."""

    hook: str
    headers: tuple[tuple[bytes, bytes], ...]
    """Names (any case) and values, in order, duplicates included."""
    body: bytes
    received_at: float
    """Unix seconds."""

    def values(self, name: str) -> list[bytes]:
        """Return every value of the header `name`."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]


@dataclass(frozen=True, slots=True)
class Hook:
    """A configured webhook endpoint: a scheme, its secrets, and what it may select."""

    name: str
    scheme: str
    secrets: tuple[bytes, ...] = field(repr=False)
    repositories: Mapping[str, str] = field(default_factory=dict)
    """The sender's full repository names, each with the site that it mirrors."""
    sites: frozenset[str] = frozenset()
    """The sites that a payload which names a site may select."""
    site: str | None = None
    """The one site that every delivery selects, for payloads that name none."""
    body_limit: int = 1 << 20
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verified payload says, as far as it matters."""

    key: str | None
    """The sender's delivery id."""
    event: str
    publish: bool
    """Whether this kind of event tells of new commits at all."""
    repository: str | None = None
    site: str | None = None
    ref: str | None = None
    """A full ref; None when the payload speaks of live without naming a ref."""
    after: str | None = None
    deleted: bool = False
