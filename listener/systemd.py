"""Telling systemd how the service stands (sd_notify(3), sd_watchdog_enabled(3))."""

import os
import socket


def notify(*states: str) -> bool:
    """Send states such as `READY=1` to the service manager; return whether there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        # A leading @ stands for the NUL of Linux's abstract namespace.
        link.sendto("\n".join(states).encode(), address.replace("@", "\0", 1))
    return True


def watchdog_interval() -> float | None:
    """Return how many seconds to leave between two signs of life, or None if none are asked for.

    systemd recommends half of the time after which it would restart the service.
    """
    asked = os.environ.get("WATCHDOG_USEC", "")
    if not asked.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(asked) / 2_000_000
