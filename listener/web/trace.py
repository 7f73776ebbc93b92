"""What has become known of the request that is being answered, for whoever tells of it when it is."""

from contextvars import ContextVar
from dataclasses import dataclass

from listener.errors import ListenerError


@dataclass(slots=True)
class Trace:
    """What has become known of a request so far."""

    credential: str = ""
    """The kind and name of the credential that it came with, if it is a known one."""
    body: bytes | None = None
    """That of a delivery, once it is read."""
    refused: ListenerError | None = None
    """Why it was refused, where its answer is not an error's but the page."""


_TRACE: ContextVar[Trace] = ContextVar("trace")


def begin() -> None:
    """Forget what was known of the connection's request before."""
    _TRACE.set(Trace())


def trace() -> Trace:
    """Return what is known of the request that is being answered, to be added to."""
    return _TRACE.get()
