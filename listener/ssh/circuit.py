"""Leaving a host alone that does not answer or go on, so that its runs do not hold up those of others."""

from listener.errors import HostStalledError, HostUnreachableError

THRESHOLD = 3
"""Attempts to connect that must fail in a row before the circuit opens."""

FIRST = 2.0
MOST = 15.0
"""Seconds for which it stays open: doubled with each further failure, up to the most."""


class Circuit:
    """Counts failures in a row. Open, it refuses at once; when its time is over, one attempt may try."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0
        self._last: HostUnreachableError | HostStalledError | None = None

    def check(self, now: float) -> None:
        """Raise the last failure, with the seconds to wait, while the circuit is open; `now` is monotonic."""
        if self._last is not None and now < self._open_until:
            refusal = type(self._last)(
                f"{self._last.message} (not tried again for {self._open_until - now:.0f} s)",
                remedy=self._last.remedy,
            )
            # Nothing was tried, so nothing has failed: a run only waits.
            refusal.again_in = self._open_until - now
            raise refusal

    def failed(self, error: HostUnreachableError | HostStalledError, now: float) -> None:
        """Take in a failed attempt."""
        self._failures += 1
        self._last = error
        if self._failures >= THRESHOLD:
            self._open_until = now + min(MOST, FIRST * 2.0 ** (self._failures - THRESHOLD))

    def stalled(self, error: HostStalledError, now: float) -> None:
        """Open at once: the host answers, but has too much of ours that does not end."""
        self._failures = max(self._failures, THRESHOLD - 1)
        self.failed(error, now)

    def succeeded(self) -> None:
        """Take in a good attempt: the count starts anew."""
        self._failures = 0
        self._open_until = 0.0
        self._last = None
