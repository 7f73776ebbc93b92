"""Repositories on remote hosts, over SSH: warm connections, a script loaded once, two round trips a run."""

from listener.ssh.pool import HostPool

__all__ = ["HostPool"]
