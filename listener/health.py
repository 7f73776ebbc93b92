"""Whether a repo host answers: what its requests have come to, counted from the start of the listener."""

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
"""Why a request gets no reply. Other errors are replies: the host answers, and a repository has a fault."""

LOCAL = (errors.HostStalledError, errors.StepTimedOutError)
"""These concern one repository. If the whole host is silent, the next login fails."""


class HostHealth:
    """What the requests to one host have come to."""

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
        """Note a request without a reply. One that was not sent, after earlier failures, is not counted."""
        if not isinstance(error, LOCAL):
            self.up = False
        if error.again_in is None or isinstance(error, errors.HostStalledError):
            self.failures[error.code] += 1

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what a request comes to."""
        try:
            yield
        except SyncError as error:
            self.failed(error)
            raise
        self.answered()
