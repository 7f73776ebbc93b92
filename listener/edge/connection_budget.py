"""How many connections there may be, so that syncs always find the file descriptors that they need."""

import resource
from dataclasses import dataclass

from listener.edge.connection_limit import AT_ONCE

SCRAPERS = 32
"""Connections to the address of the metrics: one or two Prometheus servers, and their next connections."""

OWN = 96
"""Descriptors of the listener itself: its store, log, sockets and Studio."""

OF_A_HOST = 4
"""Descriptors of a host: its connection, or the pipes of a proxy command."""

OF_A_SYNC = 8
"""Descriptors of a sync: the pipes of a git process, and those of a session of the host's connection."""


@dataclass(frozen=True, slots=True)
class ConnectionBudget:
    """How many connections there may be."""

    most: int
    scrapers: int
    files: int
    """How many descriptors the process may open."""


def places(wanted: int, hosts: int, syncs: int, files: int | None = None) -> ConnectionBudget:
    """Return how many of the wanted connections there are descriptors for, besides those of `syncs`.

    `files` is `RLIMIT_NOFILE` at the start. Connections get at most three quarters of it and at least one
    quarter. If syncs would need more than the rest, the limit is too low for so many hosts.
    """
    if files is None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    scrapers = min(SCRAPERS, max(4, files // 32))
    needed = OWN + AT_ONCE + hosts * OF_A_HOST + syncs * OF_A_SYNC + scrapers
    left = min(max(files - needed, files // 4), files * 3 // 4)
    return ConnectionBudget(min(wanted, left), scrapers, files)
