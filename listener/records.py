"""Records of requests: every delivery, every refused request, and the use of credentials.

A record names a credential and counts its uses. It never contains a credential or a signature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from listener.runs import Trigger
from listener.vocabulary import Fate as Fate  # noqa: PLC0414 (it belongs here, for everybody but a command)

SENT_AGAIN = 3 * 86400.0
"""Seconds in which a sender may send a delivery again: GitHub allows it for three days."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused request. Nothing in it is verified, except a known credential."""

    id: str
    at: float
    """Unix seconds."""
    request: str
    """Its method and path."""
    reason: str
    status: int
    """The status of the answer."""
    client: str = ""
    credential: str = ""
    """The kind and name of its credential, if that is a known one; else empty."""
    hook: str = ""
    """The requested name of a hook; empty if it was not a delivery."""
    size: int = 0
    """Bytes of its body, received or announced."""
    digest: str = ""
    """Hex SHA-256 of the body, if the signature was valid."""
    headers: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    """How many requests it stands for: in a flood, they are not recorded one by one."""


SECRET, TOKEN = "secret", "token"


@dataclass(frozen=True, slots=True)
class Use:
    """How often a credential was used, and when it was last used."""

    kind: str
    """`SECRET` or `TOKEN`."""
    owner: str
    """The hook of a secret; empty for a token."""
    name: str
    count: int
    last: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class ServedTrigger:
    """A trigger and the run that serves it now."""

    trigger: Trigger
    run: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery or a refused request, and what became of it."""

    id: str
    fate: Fate
    at: float
    hook: str
    request: str
    """The method and path of a refused request."""
    key: str | None
    """The sender's delivery id."""
    client: str
    credential: str
    size: int
    digest: str
    headers: Mapping[str, str]
    facts: Mapping[str, Any]
    """Its stored facts (`listener.deliveries.kept_facts`); empty for a refused one, and for a pruned one."""
    reason: str
    """Why it was ignored or refused."""
    status: int | None
    """The status of the answer to a refused one."""
    count: int
    """How many requests it stands for: in a flood, or with the same body while its runs waited."""
    last_at: float | None
    """When the last one with the same body came; None if it came once."""
    same_body: str | None
    """The id of the previous delivery to this hook with the same body."""
    served: tuple[ServedTrigger, ...] = ()
    """Its triggers in their order, then those of its redeliveries."""


@dataclass(frozen=True, slots=True)
class ArrivalFilter:
    """Selects a page of arrivals, newest first."""

    hook: str | None = None
    fate: Fate | None = None
    before: str | None = None
    """The id of the last arrival of the previous page."""
    limit: int = 50


class Records(Protocol):
    """A store of records. Every method may raise `StoreUnavailableError`."""

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        """Store refusals, keep only the newest `keep` of them, and add uses to the earlier ones."""

    async def arrivals(self, which: ArrivalFilter) -> list[Arrival]:
        """Return a page of arrivals, newest first."""

    async def arrival(self, arrival_id: str) -> Arrival:
        """Return one arrival, or raise `DeliveryNotFoundError`."""

    async def uses(self) -> list[Use]:
        """Return the uses of every credential, added up over all listeners."""
