"""Deliveries, refused requests, and the use of secrets and tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, RootModel

from listener.access import Role, Token
from listener.deliveries import Hook
from listener.queue import Acceptance
from listener.records import SECRET, TOKEN, Arrival, Fate, ServedTrigger, Use
from listener.runs import Origin
from listener.web.answers.runs import TriggerView
from listener.web.answers.view import Before, Count, Moment, Next, Texts, View

Uses = Mapping[tuple[str, str, str], Use]
"""The uses of credentials, by their kind, owner and name."""


class Accepted(View):
    """A delivery that is durable, and the runs that serve it."""

    delivery: str
    runs: Texts


class Ignored(View):
    """A delivery that selects nothing, and why."""

    delivery: str
    ignored: str


class AcceptedOrIgnored(RootModel[Accepted | Ignored]):
    """The answer to a delivery that selects nothing, or the first answer to one that came before."""


def acceptance_of(acceptance: Acceptance) -> Accepted | Ignored:
    """Return the answer to a delivery."""
    if acceptance.ignored:
        return Ignored(delivery=acceptance.delivery, ignored=acceptance.ignored)
    return Accepted(delivery=acceptance.delivery, runs=acceptance.runs)


class Redelivered(TriggerView):
    """Who asked for a redelivery, and the run that serves it."""

    run: str

    @classmethod
    def of(cls, served: ServedTrigger) -> Self:
        """Return the trigger and its run."""
        return cls.of_object(served.trigger, run=served.run)


class ArrivalView(View):
    """A delivery or a refused request, and what became of it."""

    id: str
    outcome: Fate
    received_at: Moment
    hook: str
    request: str = Field(description="the method and path of a refused one")
    client: str
    credential: str = Field(description="the kind and name of the credential, never its value")
    sender_id: str | None = Field(description="the id that the sender gave the delivery")
    event: str | None
    repository: str | None
    site: str | None
    refs: Texts | None
    size: Count
    digest: str = Field(description="hex SHA-256 of the body")
    same_body_as: str | None = Field(description="the last delivery before it with the same body")
    headers: Mapping[str, Any]
    reason: str = Field(description="why it was ignored or refused")
    status: int | None = Field(description="the status that a refused one was answered with")
    count: Count = Field(
        description="how many requests it stands for: of a flood, or with the same body while its runs waited"
    )
    last_received_at: Moment | None = Field(description="when the last of those with the same body came")
    runs: Texts
    redelivered: tuple[Redelivered, ...]

    @classmethod
    def of(cls, arrival: Arrival) -> Self:
        """Return what arrived."""
        facts = arrival.facts
        changes = facts.get("changes")
        redelivered = [each for each in arrival.served if each.trigger.origin is Origin.REDELIVERY]
        return cls.of_object(
            arrival,
            outcome=arrival.fate,
            received_at=arrival.at,
            sender_id=arrival.key,
            event=facts.get("event"),
            repository=facts.get("repository"),
            site=facts.get("site"),
            refs=None if changes is None else tuple(change["ref"] for change in changes),
            same_body_as=arrival.same_body,
            status=arrival.status or None,
            last_received_at=arrival.last_at,
            runs=tuple(dict.fromkeys(each.run for each in arrival.served)),
            redelivered=tuple(map(Redelivered.of, redelivered)),
        )


class DeliveriesPage(View):
    """A page of what arrived, newest first."""

    deliveries: tuple[ArrivalView, ...]
    next: Next
    before: Before

    @classmethod
    def of(cls, arrivals: Sequence[Arrival], *, more: bool) -> Self:
        """Return a page; `more` says whether another one follows."""
        following = arrivals[-1].id if more else None
        return cls(deliveries=tuple(map(ArrivalView.of, arrivals)), next=following, before=following)


class UseView(View):
    """How often a credential was used, and when last."""

    name: str
    count: Count
    last_used: Moment | None


def _use(name: str, use: Use | None) -> dict[str, Any]:
    return {"name": name, "count": use.count if use else 0, "last_used": use.last if use else None}


class HookView(View):
    """A hook, and the use of its secrets."""

    name: str
    scheme: str
    secrets: tuple[UseView, ...]

    @classmethod
    def of(cls, hook: Hook, uses: Uses) -> Self:
        """Return a hook."""
        secrets = [
            UseView(**_use(name, uses.get((SECRET, hook.name, name)))) for name in hook.secrets_by_name
        ]
        return cls(name=hook.name, scheme=hook.scheme, secrets=tuple(secrets))


class HooksView(View):
    """All hooks."""

    hooks: tuple[HookView, ...]


class TokenView(UseView):
    """A token, what it may do, and its use."""

    role: Role
    sites: Texts
    expires: Moment | None

    @classmethod
    def of(cls, token: Token, uses: Uses) -> Self:
        """Return a token."""
        use = _use(token.name, uses.get((TOKEN, "", token.name)))
        return cls.of_object(token, **use, sites=tuple(sorted(token.sites)))


class TokensView(View):
    """All tokens."""

    tokens: tuple[TokenView, ...]
