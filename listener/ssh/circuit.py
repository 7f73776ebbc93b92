"""A circuit breaker for one host: after failures in a row, it is left alone for some seconds.

Without it, the runs of a dead host would wait for its timeouts again and again, in slots that the runs of
other hosts need.
"""

from listener.errors import HostStalledError, HostUnreachableError

THRESHOLD = 3
"""Failed attempts to connect in a row after which the circuit opens."""

FIRST_PAUSE = 2.0
MAX_PAUSE = 15.0
"""Seconds for which it stays open. Each further failure doubles them, up to the maximum."""


class Circuit:
    """Counts failures in a row. While it is open, it refuses at once; then one may try again."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0
        self._last: HostUnreachableError | HostStalledError | None = None

    def check(self, now: float) -> None:
        """Raise the last failure while the circuit is open. `now` is of the monotonic clock."""
        if self._last is not None and now < self._open_until:
            refusal = type(self._last)(
                f"{self._last.message} (next attempt in {self._open_until - now:.0f} s)",
                remedy=self._last.remedy,
            )
            # Nothing was tried, so this is not a failed attempt: the run waits and comes back.
            refusal.again_in = self._open_until - now
            raise refusal

    def failed(self, error: HostUnreachableError | HostStalledError, now: float) -> None:
        """Count a failed attempt."""
        self._failures += 1
        self._last = error
        if self._failures >= THRESHOLD:
            self._open_until = now + min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** (self._failures - THRESHOLD))

    def stalled(self, error: HostStalledError, now: float) -> None:
        """Open at once: the host answers, but too many of our processes there don't end."""
        self._failures = max(self._failures, THRESHOLD - 1)
        self.failed(error, now)

    def succeeded(self) -> None:
        """Reset the count after a successful attempt."""
        self._failures = 0
        self._open_until = 0.0
        self._last = None
