"""The connections to all hosts."""

import asyncio
from collections.abc import Mapping, Sequence

from listener.errors import SyncError
from listener.plans import Notes, Observation
from listener.sites import Host, Leg
from listener.ssh.connection import HostConnection
from listener.ssh.repository import SshRepository, survey

SURVEYED_AT_ONCE = 32
"""Legs on one host that a round trip asks about."""


CONNECTS_AT_ONCE = 20
"""Hosts that are being connected to at the same time; of one host there is never more than one attempt."""


class HostPool:
    """Implements `listener.plans.Repositories` over one warm connection a host."""

    def __init__(self, hosts: Mapping[str, Host], *, step_timeout: float, connect_timeout: float) -> None:
        self._step_timeout = step_timeout
        self._connections: dict[str, HostConnection] = {}
        connects = asyncio.Semaphore(CONNECTS_AT_ONCE)

        def connection_to(name: str) -> HostConnection:
            if name not in self._connections:
                via = hosts[name].via
                self._connections[name] = HostConnection(
                    hosts[name],
                    connect_timeout=connect_timeout,
                    via=None if via is None else connection_to(via),
                    connects=connects,
                )
            return self._connections[name]

        for name in hosts:
            connection_to(name)

    def of(self, leg: Leg, notes: Notes) -> SshRepository:
        """Return the leg's repository."""
        return SshRepository(self._connections[leg.repository.host], leg, notes, self._step_timeout)

    async def survey(self, legs: Sequence[Leg], notes: Notes) -> list[Observation | SyncError]:
        """Observe many legs, `SURVEYED_AT_ONCE` of a host in each round trip."""
        groups: dict[str, list[int]] = {}
        for number, leg in enumerate(legs):
            groups.setdefault(leg.repository.host, []).append(number)
        found: dict[int, Observation | SyncError] = {}

        async def ask(host: str, numbers: Sequence[int]) -> None:
            chosen = [legs[number] for number in numbers]
            answers: Sequence[Observation | SyncError]
            try:
                answers = await survey(self._connections[host], chosen, notes, self._step_timeout)
            except SyncError as error:
                answers = [error] * len(chosen)
            found.update(zip(numbers, answers, strict=True))

        await asyncio.gather(
            *(
                ask(host, numbers[start : start + SURVEYED_AT_ONCE])
                for host, numbers in groups.items()
                for start in range(0, len(numbers), SURVEYED_AT_ONCE)
            )
        )
        return [found[number] for number in range(len(legs))]

    async def warm(self, host: str, notes: Notes) -> None:
        """Connect to a host ahead of its first run; raise `SyncError`."""
        await self._connections[host].warm(notes)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
