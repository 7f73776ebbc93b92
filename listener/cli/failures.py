"""What a command can say went wrong beyond the errors of the core, and the exit status of each."""

from typing import Any

from listener.errors import ListenerError
from listener.redaction import Cleaner

DONE = 0
FAILED = 1
MISUSED = 2
INTERRUPTED = 130
"""As a shell tells of SIGINT: 128 and the signal's number."""
CUT_OFF = 141
"""Likewise of SIGPIPE: whoever read the output has gone."""


class UsageError(ListenerError):
    """The command was not given what it needs."""

    code = "usage"


class ListenerUnreachableError(ListenerError):
    """The listener does not answer."""

    code = "listener-unreachable"
    permanent = False


class CredentialRefusedError(ListenerError):
    """The listener does not know the token, or the token has expired."""

    code = "credential-refused"
    default_remedy = "make one with sync-staging token new, and put its line into the configuration"


class RefusedByListenerError(ListenerError):
    """The listener answered with an error."""

    code = "refused-by-listener"

    @classmethod
    def of(cls, status: str, problem: dict[str, Any]) -> "RefusedByListenerError":
        """Return the error that a problem document (RFC 9457) tells of; its text is made safe."""
        clean = Cleaner()
        told = problem.get("detail") or problem.get("message") or f"The listener answered {status}."
        return cls(clean(str(told)), remedy=clean(str(problem.get("remedy", ""))))


class OutputError(ListenerError):
    """The answer can't be written."""

    code = "output"
    default_remedy = "print it to where there is room"


class RunFailedError(ListenerError):
    """The run did not make the environment equal to live."""

    code = "run-failed"


_MISUSES = (UsageError, ListenerUnreachableError, CredentialRefusedError)


def exit_status(error: ListenerError) -> int:
    """Return 2 when the command could not be asked at all, 1 when what it asked for failed."""
    return MISUSED if isinstance(error, _MISUSES) else FAILED
