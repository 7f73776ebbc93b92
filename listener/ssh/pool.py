"""The connections to all hosts, and the way to each leg's repository."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from listener.errors import SyncError
from listener.observations import Observation
from listener.plans import Notes
from listener.sites import PLACEHOLDER, Access, Host, Leg, RepositoryAddress
from listener.ssh.cache import Cache
from listener.ssh.carrier import Carrier, Sightings
from listener.ssh.connection import HostConnection
from listener.ssh.relayed import RelayedRepository
from listener.ssh.repository import SURVEY_LISTED, SshRepository
from listener.ssh.survey import Surveyor

CONNECTS_AT_ONCE = 20
"""Hosts that are being connected to at the same time; of one host there is never more than one attempt."""


class HostPool:
    """Implements `listener.plans.Repositories` over one warm connection a host."""

    def __init__(
        self,
        hosts: Mapping[str, Host],
        *,
        step_timeout: float,
        connect_timeout: float,
        transfer_timeout: float,
        cache: Path,
    ) -> None:
        """Take the folder of the cache; all limits are seconds."""
        self._step_timeout = step_timeout
        self._cache = Cache(cache, limit=transfer_timeout)
        self._sightings = Sightings()
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
        self._surveyors = {
            name: Surveyor(connection, step_timeout) for name, connection in self._connections.items()
        }

    def of(self, leg: Leg, notes: Notes) -> SshRepository | RelayedRepository:
        """Return the leg's repository: itself where live lies in it too, else by way of the cache."""
        if self._at_home(leg):
            return self._shelled(leg, notes)
        home = replace(leg, repository=leg.source, branch=leg.live)
        return RelayedRepository(
            self._carrier(home, notes),
            self._carrier(leg, notes),
            live=self._shelled(home, notes) if self._has_shell(home) else None,
            shell=self._shelled(leg, notes) if self._has_shell(leg) else None,
            sightings=self._sightings,
        )

    async def survey(self, legs: Sequence[Leg], notes: Notes) -> list[Observation | SyncError]:
        """Observe many legs, those of a host together where they need no cache."""
        at_home: dict[str, list[Leg]] = {}
        relayed = []
        for leg in dict.fromkeys(legs):
            if self._at_home(leg):
                at_home.setdefault(leg.repository.host, []).append(leg)
            else:
                relayed.append(leg)
        found: dict[Leg, Observation | SyncError] = {}

        async def look(leg: Leg) -> None:
            try:
                seen = await self.of(leg, notes).observe(counting=True)
                found[leg] = replace(seen, drift=seen.drift.first(SURVEY_LISTED))
            except SyncError as error:
                found[leg] = error

        async def survey(host: str, chosen: Sequence[Leg]) -> None:
            found.update(await self._surveyors[host].look(chosen, notes))

        await asyncio.gather(*(survey(*each) for each in at_home.items()), *map(look, relayed))
        return [found[leg] for leg in legs]

    async def present(self, address: RepositoryAddress, site: str | None, notes: Notes) -> list[str]:
        """Return the ids of the sites that have a repository where a pattern's address says."""
        before, after = address.path.removeprefix(address.root).lstrip("/").split(PLACEHOLDER)
        after, slash, rest = after.partition("/")
        question = {"root": address.root, "before": before, "after": after, "rest": slash + rest}
        connection = self._connections[address.host]
        told = await connection.call(notes, self._step_timeout, "sites", {**question, "one": site or ""})
        return [line.removeprefix("site ") for line in told.split("\n") if line.startswith("site ")]

    async def speaks_git(self, leg: Leg, notes: Notes) -> bool:
        """Return whether the account on a leg's host runs git's own services, shell or not."""
        try:
            await self._carrier(leg, notes).advertised(self._sightings)
        except SyncError:
            return False
        return True

    async def warm(self, host: str, notes: Notes) -> None:
        """Connect to a host ahead of its first run; raise `SyncError`."""
        await self._connections[host].warm(notes)

    async def close(self) -> None:
        """Close every connection."""
        await self._cache.close()
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))

    def _has_shell(self, leg: Leg) -> bool:
        return self._connections[leg.repository.host].host.access is not Access.GIT

    def _at_home(self, leg: Leg) -> bool:
        return leg.own and self._has_shell(leg)

    def _shelled(self, leg: Leg, notes: Notes) -> SshRepository:
        return SshRepository(self._connections[leg.repository.host], leg, notes, self._step_timeout)

    def _carrier(self, leg: Leg, notes: Notes) -> Carrier:
        return Carrier(leg, self._connections[leg.repository.host], self._cache.of(leg.site), notes)
