"""The way in: a delivery is verified, read and selected; what it asks for is accepted once it is durable."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from listener import deliveries, signatures
from listener.deliveries import Delivery, Facts, Hook
from listener.errors import HookNotFoundError, RequestError, SignatureRejectedError
from listener.journal import Log
from listener.queue import Acceptance, Hold, Reception, RunStore
from listener.runs import Origin, Run, Trigger, new_id
from listener.sites import Environment, Sites

LARGE = 256 << 10
"""Bytes from which a body is read apart: it may take a second, in which others are answered."""


@dataclass(frozen=True, slots=True)
class Settling:
    """How long an automatic trigger waits for further ones, so that many of them become one run; seconds."""

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
        settling: Settling = Settling(),
    ) -> None:
        self._settling = settling
        self._store = store
        self._sites = sites
        self._hooks = hooks
        self._clock = clock
        self._log = log
        self._reading = asyncio.Lock()
        """One large body is read at a time, for the memory that it takes."""

    def hook(self, name: str) -> Hook:
        """Return the hook of that name, or raise `HookNotFoundError`."""
        if name not in self._hooks:
            raise HookNotFoundError
        return self._hooks[name]

    async def receive(self, hook: Hook, delivery: Delivery) -> Acceptance:
        """Take one delivery in; return its answer once everything is durable.

        Raises `SignatureRejectedError`, `MalformedDeliveryError`, `UnsupportedMediaError`,
        `StoreUnavailableError`.
        """
        try:
            secret = self._verify(hook, delivery)
            acceptance = await self._receive(hook, delivery)
        except RequestError as error:
            self._log.log(
                30, "delivery refused", hook=hook.name, reason=error.message, size=len(delivery.body)
            )
            raise
        self._log.log(
            20,
            "delivery",
            hook=hook.name,
            # Its place in the configuration's list: a secret that no delivery names any more can go.
            secret=secret,
            delivery=acceptance.delivery,
            runs=list(acceptance.runs),
            ignored=acceptance.ignored,
            repeated=acceptance.repeated,
        )
        return acceptance

    def _verify(self, hook: Hook, delivery: Delivery) -> int:
        """Return the index of the secret that the delivery was signed with."""
        verdict = signatures.verify(
            hook.scheme, hook.secrets, delivery.request, delivery.received_at, hook.form
        )
        if isinstance(verdict, signatures.Rejected):
            challenge = signatures.scheme_of(hook.scheme, hook.form).challenge
            raise SignatureRejectedError(verdict.reason, challenge=challenge)
        return verdict.secret

    async def _receive(self, hook: Hook, delivery: Delivery) -> Acceptance:
        facts = await self._facts(hook, delivery)
        selected = deliveries.select(facts, hook, self._sites)
        now = self._clock()
        ignored = selected.reason if isinstance(selected, deliveries.Ignored) else ""
        environments = () if isinstance(selected, deliveries.Ignored) else selected
        reception = Reception(
            id=new_id(now),
            hook=hook.name,
            key=facts.key,
            received_at=delivery.received_at,
            size=len(delivery.body),
            digest=hashlib.sha256(delivery.body).hexdigest(),
            headers=deliveries.kept_headers(delivery),
            facts=deliveries.kept_facts(facts),
            ignored=ignored,
        )
        triggers = [self._settled(each, Origin.HOOK, hook.name, now) for each in environments]
        return await self._store.accept(triggers, reception, now)

    async def _facts(self, hook: Hook, delivery: Delivery) -> Facts:
        if len(delivery.body) < LARGE:
            return deliveries.read(hook, delivery)
        async with self._reading:
            return await asyncio.to_thread(deliveries.read, hook, delivery)

    async def release(self, environment: Environment, actor: str) -> tuple[Hold | None, Run | None]:
        """Let an environment go; return the hold that was, and the run by which it catches up."""
        now = self._clock()
        trigger = _trigger(environment, Origin.RELEASE, actor, now)
        catch_up = trigger if environment.follow else None
        released = await self._store.release(environment.site, environment.name, catch_up)
        if released is None:
            return None, None
        self._log.log(20, "release", site=environment.site, environment=environment.name, actor=actor)
        return released, await self._store.serving(trigger.id) if catch_up else None

    async def scheduled(self, environment: Environment) -> Acceptance:
        """Accept what a look at drift asks for."""
        now = self._clock()
        trigger = self._settled(environment, Origin.SCHEDULE, "schedule", now)
        acceptance = await self._store.accept([trigger], None, now)
        self._log.log(
            20,
            "drift",
            site=environment.site,
            environment=environment.name,
            runs=list(acceptance.runs),
        )
        return acceptance

    def _settled(self, environment: Environment, origin: Origin, actor: str, now: float) -> Trigger:
        settling = self._settling
        trigger = _trigger(environment, origin, actor, now)
        return replace(trigger, settle=settling.settle, settle_most=settling.most)

    async def request(self, environment: Environment, origin: Origin, actor: str) -> Acceptance:
        """Accept a direct call for one environment; return once it is durable."""
        now = self._clock()
        trigger = _trigger(environment, origin, actor, now)
        acceptance = await self._store.accept([trigger], None, now)
        self._log.log(
            20,
            "call",
            site=environment.site,
            environment=environment.name,
            origin=origin.value,
            actor=actor,
            runs=list(acceptance.runs),
        )
        return acceptance


def _trigger(environment: Environment, origin: Origin, actor: str, now: float) -> Trigger:
    return Trigger(new_id(now), environment.site, environment.name, origin, actor, now, lane=environment.lane)
