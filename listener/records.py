"""What is on record of those who came: every delivery, every refused request, and which credentials are used.

Never a credential, and never a signature: a credential is named, and its use is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from listener.runs import Trigger
from listener.vocabulary import Fate as Fate  # noqa: PLC0414 (it belongs here, for everybody but a command)

SENT_AGAIN = 3 * 86400.0
"""Seconds within which a sender may send a delivery again: GitHub offers it for three days."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused. Nothing that it says of itself is verified, but for its credential."""

    id: str
    at: float
    """Unix seconds."""
    request: str
    """Its method and path."""
    reason: str
    status: int
    """Of its answer."""
    client: str = ""
    credential: str = ""
    """The kind and name of a known credential that it came with; empty for none and for unknown ones."""
    hook: str = ""
    """The name that was asked for; empty if it was no delivery."""
    size: int = 0
    """Bytes of its body, or as many as it was announced to have."""
    digest: str = ""
    """Hex SHA-256 of the body of one whose signature was good."""
    headers: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    """How many requests it stands for: in a flood they are not recorded one by one."""


SECRET, TOKEN = "secret", "token"


@dataclass(frozen=True, slots=True)
class Use:
    """How often a credential was used, and when last."""

    kind: str
    """`SECRET` or `TOKEN`."""
    owner: str
    """The hook that a secret is of; empty for a token."""
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
    """The method and path of a refused one."""
    key: str | None
    """The sender's delivery id."""
    client: str
    credential: str
    size: int
    digest: str
    headers: Mapping[str, str]
    facts: Mapping[str, Any]
    """What it says (`listener.deliveries.kept_facts`); empty for a refused one, and for one of too many."""
    reason: str
    """Why it was ignored or refused."""
    status: int | None
    """Of the answer to a refused one."""
    count: int
    """How many requests it stands for: of a flood, or with the same body while its runs waited."""
    last_at: float | None
    """When the last of those with the same body came; None where it came once."""
    same_body: str | None
    """The id of the last delivery to this hook before it that had the same body."""
    served: tuple[ServedTrigger, ...] = ()
    """What it asked for, in its order; then what redelivering it asked for."""


@dataclass(frozen=True, slots=True)
class ArrivalFilter:
    """Which arrivals are asked for, newest first."""

    hook: str | None = None
    fate: Fate | None = None
    before: str | None = None
    """The id of the arrival after which to go on."""
    limit: int = 50


class Records(Protocol):
    """What a store keeps of those who came. Every method may raise `StoreUnavailableError`."""

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        """Store refusals, of which the newest `keep` stay, and add uses to those of before."""

    async def arrivals(self, which: ArrivalFilter) -> list[Arrival]:
        """Return a page of what arrived, newest first."""

    async def arrival(self, arrival_id: str) -> Arrival:
        """Return one, or raise `DeliveryNotFoundError`."""

    async def uses(self) -> list[Use]:
        """Return every credential's uses, added up over all listeners."""
