"""The errors that only a command raises, and the exit status of each error."""

from typing import Any

from listener.errors import ListenerError
from listener.redaction import Cleaner

DONE = 0
FAILED = 1
MISUSED = 2
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells report it."""
CUT_OFF = 141
"""128 and the number of SIGPIPE: the reader of the output has gone."""


class UsageError(ListenerError):
    """The command lacks something that it needs."""

    code = "usage"


class ListenerUnreachableError(ListenerError):
    """The listener does not answer."""

    code = "listener-unreachable"
    permanent = False


class CredentialRefusedError(ListenerError):
    """The listener does not know the token, or the token has expired."""

    code = "credential-refused"
    default_remedy = "make a token with sync-staging token new, and add its line to the configuration"


class RefusedByListenerError(ListenerError):
    """The listener answered with an error."""

    code = "refused-by-listener"

    @classmethod
    def of(cls, status: str, problem: dict[str, Any]) -> "RefusedByListenerError":
        """Return the error in a problem document (RFC 9457), its text made safe for a terminal."""
        clean = Cleaner()
        message = problem.get("detail") or problem.get("message") or f"The listener answered {status}."
        return cls(clean(str(message)), remedy=clean(str(problem.get("remedy", ""))))


class OutputError(ListenerError):
    """The output can't be written."""

    code = "output"
    default_remedy = "write the output to a disk with free space"


class RunFailedError(ListenerError):
    """The run did not make the environment equal to live."""

    code = "run-failed"


_MISUSES = (UsageError, ListenerUnreachableError, CredentialRefusedError)


def exit_status(error: ListenerError) -> int:
    """Return 2 if the command could not start its work, 1 if the work failed."""
    return MISUSED if isinstance(error, _MISUSES) else FAILED
