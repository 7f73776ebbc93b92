"""The connections to all hosts."""

import asyncio
from collections.abc import Mapping

from listener.plans import Notes
from listener.sites import Host, RepositoryAddress
from listener.ssh.connection import HostConnection
from listener.ssh.repository import SshRepository


class HostPool:
    """Implements `listener.plans.Repositories` over one warm connection a host."""

    def __init__(self, hosts: Mapping[str, Host], *, step_timeout: float, connect_timeout: float) -> None:
        self._step_timeout = step_timeout
        self._connections = {
            name: HostConnection(host, connect_timeout=connect_timeout) for name, host in hosts.items()
        }

    def at(self, address: RepositoryAddress, notes: Notes) -> SshRepository:
        """Return the repository at that address."""
        return SshRepository(self._connections[address.host], address.path, notes, self._step_timeout)

    async def warm(self, host: str, notes: Notes) -> None:
        """Connect to a host ahead of its first run; raise `SyncError`."""
        await self._connections[host].warm(notes)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
