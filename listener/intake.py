"""The intake: deliveries are verified, read and selected, and accepted once they are durable."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from listener import deliveries, signatures
from listener.audit import Audit
from listener.deliveries import Delivery, Facts, Hook
from listener.errors import ConflictError, HookNotFoundError, ListenerError, SignatureRejectedError
from listener.journal import Log
from listener.networks import within
from listener.queue import Acceptance, DeliveryRecord, Hold, RunStore
from listener.records import Arrival, Fate
from listener.runs import Asker, Origin, Run, Trigger, new_id
from listener.sites import Environment, Sites

LARGE = 256 << 10
"""Bytes from which a body is read in a thread. That may take a second, and others are answered meanwhile."""


@dataclass(frozen=True, slots=True)
class Settling:
    """How long an automatic trigger waits for further ones, in seconds: so many publishes become one run."""

    settle: float = 0.0
    most: float = 0.0


class Intake:
    """Accepts deliveries and direct calls."""

    def __init__(
        self,
        store: RunStore,
        sites: Sites,
        hooks: Mapping[str, Hook],
        clock: Callable[[], float],
        log: Log,
        audit: Audit,
        settling: Settling = Settling(),
    ) -> None:
        self._audit = audit
        self._settling = settling
        self._store = store
        self._sites = sites
        self._hooks = hooks
        self._clock = clock
        self._log = log
        self._reading = asyncio.Lock()
        """One large body is read at a time, because it takes much memory."""

    def hook(self, name: str, client: str) -> Hook:
        """Return the hook of that name; raise `HookNotFoundError` if `client` may not see it, too."""
        if name not in self._hooks:
            raise HookNotFoundError(reason="no hook has this name")
        hook = self._hooks[name]
        if hook.networks and not within(client, hook.networks):
            raise HookNotFoundError(reason="the address is in none of the hook's networks")
        return hook

    def check_headers(self, hook: Hook, delivery: Delivery) -> None:
        """Raise `SignatureRejectedError` if the headers alone are enough to reject a delivery."""
        if signatures.rejected_by_headers(
            hook.scheme, hook.secrets, delivery.request, delivery.received_at, hook.form
        ):
            raise SignatureRejectedError(challenge=signatures.scheme_of(hook.scheme, hook.form).challenge)

    async def receive(self, hook: Hook, delivery: Delivery, secret: int, client: str = "") -> Acceptance:
        """Accept a verified delivery; return the answer once everything is durable.

        `secret` is the index of the secret that signed it, `client` the sender's address. Raises
        `MalformedDeliveryError`, `UnsupportedMediaError`, `StoreUnavailableError`.
        """
        self._audit.used_secret(hook, secret, delivery.received_at)
        name = hook.secret_name(secret)
        asker = Asker(hook.name, f"hook {hook.name}, {_spoken(name)}", client)
        try:
            acceptance = await self._receive(hook, delivery, asker)
        except ListenerError as error:
            error.credential = asker.credential
            raise
        self._log.info(
            "delivery",
            hook=hook.name,
            # An old secret can be removed once no delivery names it any more.
            secret=name,
            client=client,
            delivery=acceptance.delivery,
            runs=acceptance.runs,
            ignored=acceptance.ignored,
            repeated=acceptance.repeated,
        )
        return acceptance

    def verify(self, hook: Hook, delivery: Delivery) -> int:
        """Return the index of the secret that a delivery was signed with; raise `SignatureRejectedError`."""
        verdict = signatures.verify(
            hook.scheme, hook.secrets, delivery.request, delivery.received_at, hook.form
        )
        if isinstance(verdict, signatures.Rejected):
            challenge = signatures.scheme_of(hook.scheme, hook.form).challenge
            error = SignatureRejectedError(verdict.reason, challenge=challenge)
            error.guess = signatures.shows_wrong_secret(hook.scheme, verdict)
            raise error
        return verdict.secret

    async def _receive(self, hook: Hook, delivery: Delivery, asker: Asker) -> Acceptance:
        facts = await self._facts(hook, delivery)
        selected = deliveries.select(facts, hook, self._sites)
        now = self._clock()
        ignored = selected.reason if isinstance(selected, deliveries.Ignored) else ""
        environments = () if isinstance(selected, deliveries.Ignored) else selected
        record = DeliveryRecord(
            id=new_id(now),
            hook=hook.name,
            key=facts.key,
            received_at=delivery.received_at,
            size=len(delivery.body),
            digest=hashlib.sha256(delivery.body).hexdigest(),
            headers=deliveries.kept_headers(delivery),
            facts=deliveries.kept_facts(facts),
            ignored=ignored,
            credential=asker.credential,
            client=asker.client,
        )
        triggers = [self._settled(each, Origin.HOOK, asker, now) for each in environments]
        return await self._store.accept(triggers, record, now)

    async def _facts(self, hook: Hook, delivery: Delivery) -> Facts:
        if len(delivery.body) < LARGE:
            return deliveries.read(hook, delivery)
        async with self._reading:
            return await asyncio.to_thread(deliveries.read, hook, delivery)

    async def redeliver(self, arrival: Arrival, asker: Asker) -> Acceptance:
        """Select by today's configuration what a delivery asked for, and accept it as an explicit call.

        Raises `ConflictError` if it selects nothing, and `DeliveryNotFoundError`.
        """
        now = self._clock()
        environments = self._selected_again(arrival)
        triggers = [_trigger(each, Origin.REDELIVERY, asker, now) for each in environments]
        acceptance = await self._store.redeliver(arrival.id, triggers, now)
        self._log.info(
            "redeliver", delivery=arrival.id, hook=arrival.hook, runs=list(acceptance.runs), **asker.facts
        )
        return acceptance

    def _selected_again(self, arrival: Arrival) -> tuple[Environment, ...]:
        if arrival.fate is Fate.REFUSED:
            raise ConflictError(
                f"The delivery was refused, so its content was not stored: {arrival.reason}.",
                remedy="let its sender send it again",
            )
        if not arrival.facts:
            raise ConflictError(
                "The delivery's content is not stored any more: its hook has had very many deliveries since.",
                remedy="let its sender send it again, or ask for a sync of the site",
            )
        if arrival.hook not in self._hooks:
            raise ConflictError(f"The hook {arrival.hook} is not configured any more.")
        hook = self._hooks[arrival.hook]
        facts = deliveries.recall(hook, arrival.facts)
        selected = deliveries.select(facts, hook, self._sites)
        if isinstance(selected, deliveries.Ignored):
            raise ConflictError(f"The delivery selects nothing: {selected.reason}{_as_far_as_kept(facts)}.")
        return selected

    async def hold(self, environment: Environment, reason: str, asker: Asker) -> Hold:
        """Freeze an environment; return the hold once it is durable."""
        hold = Hold(environment.site, environment.name, reason, asker.name, self._clock())
        await self._store.hold(hold)
        self._log.info(
            "hold", site=environment.site, environment=environment.name, reason=reason, **asker.facts
        )
        return hold

    async def release(self, environment: Environment, asker: Asker) -> tuple[Hold | None, Run | None]:
        """Release an environment; return its hold, and the run that brings it up to date."""
        now = self._clock()
        trigger = _trigger(environment, Origin.RELEASE, asker, now)
        catch_up = trigger if environment.follow else None
        released = await self._store.release(environment.site, environment.name, catch_up)
        if released is None:
            return None, None
        self._log.info("release", site=environment.site, environment=environment.name, **asker.facts)
        return released, await self._store.serving(trigger.id) if catch_up else None

    async def scheduled(self, environment: Environment) -> Acceptance:
        """Accept a sync that a check of the drift asks for."""
        now = self._clock()
        trigger = self._settled(environment, Origin.SCHEDULE, Asker("schedule"), now)
        acceptance = await self._store.accept([trigger], None, now)
        self._log.info(
            "drift",
            site=environment.site,
            environment=environment.name,
            runs=list(acceptance.runs),
        )
        return acceptance

    def _settled(self, environment: Environment, origin: Origin, asker: Asker, now: float) -> Trigger:
        return _trigger(environment, origin, asker, now, self._settling)

    async def request(self, environment: Environment, origin: Origin, asker: Asker) -> Acceptance:
        """Accept a direct call for one environment; return once it is durable."""
        now = self._clock()
        trigger = _trigger(environment, origin, asker, now)
        acceptance = await self._store.accept([trigger], None, now)
        self._log.info(
            "retry" if origin is Origin.RETRY else "call",
            site=environment.site,
            environment=environment.name,
            origin=origin.value,
            runs=list(acceptance.runs),
            **asker.facts,
        )
        return acceptance


def _trigger(
    environment: Environment, origin: Origin, asker: Asker, now: float, settling: Settling = Settling()
) -> Trigger:
    return Trigger(
        new_id(now),
        environment.site,
        environment.name,
        origin,
        asker.name,
        now,
        settle=settling.settle,
        settle_most=settling.most,
        lane=environment.lane,
        credential=asker.credential,
        client=asker.client,
    )


def _spoken(secret: str) -> str:
    return secret if secret.startswith("secret ") else f"secret {secret}"


def _as_far_as_kept(facts: Facts) -> str:
    if facts.changes is None or len(facts.changes) < deliveries.CHANGES_MOST:
        return ""
    return f" (only the first {deliveries.CHANGES_MOST} pushed refs are stored)"
