"""Leaving a host alone that does not answer, so that its runs do not hold up those of others."""

from listener.errors import HostUnreachableError

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
        self._last: HostUnreachableError | None = None

    def check(self, now: float) -> None:
        """Raise the last failure, with the seconds to wait, while the circuit is open; `now` is monotonic."""
        if self._last is not None and now < self._open_until:
            refusal = HostUnreachableError(
                f"{self._last.message} (not tried again for {self._open_until - now:.0f} s)"
            )
            # Nothing was tried, so nothing has failed: a run only waits.
            refusal.again_in = self._open_until - now
            raise refusal

    def failed(self, error: HostUnreachableError, now: float) -> None:
        """Take in a failed attempt."""
        self._failures += 1
        self._last = error
        if self._failures >= THRESHOLD:
            self._open_until = now + min(MOST, FIRST * 2.0 ** (self._failures - THRESHOLD))

    def succeeded(self) -> None:
        """Take in a good attempt: the count starts anew."""
        self._failures = 0
        self._open_until = 0.0
        self._last = None
