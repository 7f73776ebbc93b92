"""The connections to all hosts, and the repository of each leg."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from listener.errors import SyncError
from listener.health import HostHealth
from listener.observations import Observation
from listener.plans import Notes
from listener.sites import PLACEHOLDER, Access, Host, Leg, RepositoryAddress
from listener.ssh.cache import Cache
from listener.ssh.connection import HostConnection, HostRequests
from listener.ssh.git_remote import GitRemote, MarkAges
from listener.ssh.relayed import RelayedRepository
from listener.ssh.repository import SURVEY_LISTED, SshRepository
from listener.ssh.survey import Answer, Surveyor

MAX_LOGINS = 20
"""Hosts that are logged in to at the same time, each by one attempt."""


class HostPool:
    """Implements `listener.plans.Repositories` with one warm connection a host."""

    def __init__(
        self,
        hosts: Mapping[str, Host],
        *,
        step_timeout: float,
        connect_timeout: float,
        transfer_timeout: float,
        cache: Path,
    ) -> None:
        """`cache` is the folder of the cache; all limits are seconds."""
        self._step_timeout = step_timeout
        self._cache = Cache(cache, limit=transfer_timeout)
        self._mark_ages = MarkAges()
        self._connections: dict[str, HostConnection] = {}
        login_slots = asyncio.Semaphore(MAX_LOGINS)

        def connection_to(name: str) -> HostConnection:
            if name not in self._connections:
                via = hosts[name].via
                self._connections[name] = HostConnection(
                    hosts[name],
                    connect_timeout=connect_timeout,
                    via=None if via is None else connection_to(via),
                    login_slots=login_slots,
                )
            return self._connections[name]

        for name in hosts:
            connection_to(name)
        self._surveyors = {
            name: Surveyor(connection, step_timeout) for name, connection in self._connections.items()
        }
        self._survey_requests = {name: surveyor.requests for name, surveyor in self._surveyors.items()}

    def of(self, leg: Leg, notes: Notes) -> SshRepository | RelayedRepository:
        """Return the leg's repository: through a shell if live is in it too, otherwise through the cache."""
        return self._repository(leg, notes, self._connections)

    def _repository(
        self, leg: Leg, notes: Notes, hosts: Mapping[str, HostRequests]
    ) -> SshRepository | RelayedRepository:
        if self._is_direct(leg):
            return self._shell_repository(leg, notes, hosts)
        source = replace(leg, repository=leg.source, branch=leg.live)
        return RelayedRepository(
            self._git_remote(source, notes, hosts),
            self._git_remote(leg, notes, hosts),
            live=self._shell_repository(source, notes, hosts) if self._has_shell(source) else None,
            shell=self._shell_repository(leg, notes, hosts) if self._has_shell(leg) else None,
            mark_ages=self._mark_ages,
        )

    async def survey(self, legs: Sequence[Leg], notes: Notes) -> list[Observation | SyncError]:
        """Observe many legs. Those of one host are asked about together, unless they need the cache.

        Of those, a host has one look at a time: together they would take all git processes of the cache.
        """
        direct: dict[str, list[Leg]] = {}
        relayed: dict[str, list[Leg]] = {}
        for leg in dict.fromkeys(legs):
            chosen = direct if self._is_direct(leg) else relayed
            chosen.setdefault(leg.repository.host, []).append(leg)
        found: dict[Leg, Observation | SyncError] = {}

        async def survey(host: str, chosen: Sequence[Leg]) -> None:
            found.update(await self._surveyors[host].look(chosen, notes))

        async def look(chosen: Sequence[Leg]) -> None:
            for leg in chosen:
                found[leg] = await self._look(leg, notes)

        await asyncio.gather(*(survey(*each) for each in direct.items()), *map(look, relayed.values()))
        return [found[leg] for leg in legs]

    async def _look(self, leg: Leg, notes: Notes) -> Observation | SyncError:
        try:
            seen = await self._repository(leg, notes, self._survey_requests).observe(counting=True)
        except SyncError as error:
            return error
        return replace(seen, drift=seen.drift.first(SURVEY_LISTED))

    async def survey_apart(self, host: str, legs: Sequence[Leg], notes: Notes) -> dict[Leg, Answer]:
        """Observe the repositories of one host, each by itself. Nothing is compared or fetched."""
        connection = self._connections[host]
        if connection.host.access is not Access.GIT:
            return await Surveyor(connection, self._step_timeout, listing=False).look(legs, notes)
        found: dict[Leg, Answer] = {}
        for leg in legs:
            try:
                remote = self._git_remote(leg, notes, self._survey_requests)
                found[leg] = await remote.advertised(self._mark_ages)
            except SyncError as error:
                found[leg] = error
        return found

    def git_version(self, host: str) -> str:
        """Return the output of `git --version` on a host; empty if it is not known."""
        return self._connections[host].git

    async def present(self, address: RepositoryAddress, site: str | None, notes: Notes) -> list[str]:
        """Return the ids of the sites that have a repository at a pattern's address."""
        before, after = address.path.removeprefix(address.root).lstrip("/").split(PLACEHOLDER)
        after, slash, rest = after.partition("/")
        question = {"root": address.root, "before": before, "after": after, "rest": slash + rest}
        question["one"] = site or ""
        connection = self._connections[address.host]
        reply = await connection.call(notes, self._step_timeout, "sites", question)
        return [line.removeprefix("site ") for line in reply.split("\n") if line.startswith("site ")]

    async def speaks_git(self, leg: Leg, notes: Notes) -> bool:
        """Return whether the account on a leg's host runs git's own services."""
        try:
            await self._git_remote(leg, notes, self._connections).advertised(self._mark_ages)
        except SyncError:
            return False
        return True

    async def warm(self, host: str, notes: Notes) -> None:
        """Connect to a host before its first run; raise `SyncError`."""
        await self._connections[host].warm(notes)

    def health(self) -> dict[str, HostHealth]:
        """Return whether each host answers."""
        return {name: connection.health for name, connection in self._connections.items()}

    async def close(self) -> None:
        """Close every connection."""
        await self._cache.close()
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))

    def _has_shell(self, leg: Leg) -> bool:
        return self._connections[leg.repository.host].host.access is not Access.GIT

    def _is_direct(self, leg: Leg) -> bool:
        return leg.own and self._has_shell(leg)

    def _shell_repository(self, leg: Leg, notes: Notes, hosts: Mapping[str, HostRequests]) -> SshRepository:
        return SshRepository(hosts[leg.repository.host], leg, notes, self._step_timeout)

    def _git_remote(self, leg: Leg, notes: Notes, hosts: Mapping[str, HostRequests]) -> GitRemote:
        return GitRemote(leg, hosts[leg.repository.host], self._cache.of(leg.site), notes)
