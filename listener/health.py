"""Whether a repo host answers: the results of its requests, counted from the start of the listener."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from listener import errors
from listener.errors import SyncError

FAILURES: tuple[type[SyncError], ...] = (
    errors.HostUnreachableError,
    errors.ConnectionLostError,
    errors.HostStalledError,
    errors.StepTimedOutError,
    errors.LoginRefusedError,
    errors.HostKeyRejectedError,
    errors.IdentityUnusableError,
    errors.AgentUnavailableError,
    errors.SshConfigUnusableError,
    errors.ForwardingRefusedError,
    errors.ShellUnavailableError,
    errors.RestrictedKeyError,
    errors.ScriptOutdatedError,
    errors.GitUnavailableError,
)
"""The errors of requests without a reply. With any other error, the host has answered."""

LOCAL = (errors.HostStalledError, errors.StepTimedOutError)
"""These concern one repository, so the host still counts as up. If it is down, the next login fails."""


class HostHealth:
    """The results of the requests to one host."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.up: bool | None = None
        """Whether the host answered the last request; None before the first one."""
        self.answered_at: float | None = None
        """The Unix time of its last answer."""
        self.failures = Counter({each.code: 0 for each in FAILURES})
        """The number of requests without a reply, by the code of the error."""

    def answered(self) -> None:
        """Note an answer."""
        self.up = True
        self.answered_at = self._clock()

    def failed(self, error: SyncError) -> None:
        """Note a request without a reply. If earlier failures kept it from being sent, it is not counted."""
        if not isinstance(error, LOCAL):
            self.up = False
        if error.again_in is None or isinstance(error, errors.HostStalledError):
            self.failures[error.code] += 1

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the result of the request in the block."""
        try:
            yield
        except SyncError as error:
            self.failed(error)
            raise
        self.answered()
