"""Reporting the service's state to systemd (sd_notify(3), sd_watchdog_enabled(3))."""

import os
import socket
from collections.abc import Mapping

from listener.journal import Log


class ServiceManager:
    """The service manager that started this process, if there is one.

    A message that can't be sent is dropped: a socket that does not exist, has gone or is not read must not
    stop the listener or make it wait.
    """

    def __init__(self, log: Log, environ: Mapping[str, str] = os.environ) -> None:
        self._log = log
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._warned = False
        self.watchdog = _watchdog(environ)
        """Seconds between two signs of life; None if the service manager wants none."""

    def notify(self, *states: str) -> bool:
        """Send states such as `READY=1`; return whether they were sent."""
        if not self._address.startswith(("/", "@")):
            return False
        # A leading @ stands for the NUL of Linux's abstract namespace.
        address = self._address.replace("@", "\0", 1)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
                # MSG_DONTWAIT: the event loop, and with it the whole listener, would wait for a reader.
                link.sendto("\n".join(states).encode(), socket.MSG_DONTWAIT, address)
        except (OSError, ValueError) as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        reason = "nobody reads it" if isinstance(error, BlockingIOError) else str(error)
        self._log.warning(
            "service manager",
            socket=self._address,
            reason=reason,
            remedy="unset NOTIFY_SOCKET if systemd does not run the listener",
        )


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return half of the time after which systemd restarts a silent service, as systemd recommends."""
    interval_text, process = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    if environ.get("WATCHDOG_PID", process) != process:
        return None
    try:
        interval = int(interval_text) / 2_000_000
    except (ValueError, OverflowError):
        return None
    return interval if interval > 0 else None
