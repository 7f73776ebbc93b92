"""How many connections there may be, so that syncs always find the file descriptors that they need."""

import resource
from dataclasses import dataclass

from listener.edge.crowd import AT_ONCE

SCRAPERS = 32
"""Connections to the address of the figures: a Prometheus or two, and room for their next ones."""

OWN = 96
"""What a listener has open by itself: its store, log and sockets, Studio, what a command-line call needs."""

OF_A_HOST = 4
"""A connection, or a proxy command's pipes."""

OF_A_SYNC = 8
"""A git's pipes, and what it hands over to a session of the host's connection."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections there may be."""

    most: int
    scrapers: int
    files: int
    """How many descriptors the process may have."""


def places(wanted: int, hosts: int, syncs: int, files: int | None = None) -> Places:
    """Return for how many of the wanted connections there are descriptors beside what `syncs` need.

    `files` is `RLIMIT_NOFILE`, as it is at the start. Strangers never get more than three quarters of it, and
    there is always a quarter for the door: with less, the limit is too low for so many hosts.
    """
    if files is None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    scrapers = min(SCRAPERS, max(4, files // 32))
    needed = OWN + AT_ONCE + hosts * OF_A_HOST + syncs * OF_A_SYNC + scrapers
    left = min(max(files - needed, files // 4), files * 3 // 4)
    return Places(min(wanted, left), scrapers, files)
