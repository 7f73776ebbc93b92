"""The context of the HTTP request that is being answered.

The edge begins it, the routes use it and add to it. So neither needs to know the other.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from listener.errors import ListenerError

UNRESERVED = 64 << 10
"""Bytes of each body that need no reservation of memory: the number of connections is limited."""


class Connection(Protocol):
    """The connection that a request came by."""

    verified: bool
    """Whether its last request came from a known caller."""


class Reservation(Protocol):
    """The memory that a request's body takes, until the request has been answered."""

    @property
    def waiting(self) -> bool:
        """Whether the body waits for memory, and not for its sender."""

    async def hold(self, size: int) -> None:
        """Hold so many bytes in all, once there is memory; raises `NoRoomError`."""

    def end(self) -> None:
        """Give everything back."""


@dataclass(slots=True)
class RequestContext:
    """What has become known of a request so far."""

    connection: Connection
    memory: Reservation
    invalid: ListenerError | None = None
    """What is wrong with its head; no route sees it then."""
    over: bool = False
    """Whether its client was refused too often. Refusing it again should cost little."""
    quiet: bool = False
    """Whether the log needs no line about it."""
    invited: bool = False
    """Whether a handler asked for the body."""
    credential: str = ""
    """The kind and name of the credential that it came with, if it is a known one."""
    body: bytes | None = None
    """The body of a delivery, once it is read."""
    refused: ListenerError | None = None
    """Why it was refused, if its answer is the page and not an error."""

    def mark_verified(self) -> None:
        """Note that it comes from a known caller. Its connection is not evicted for unknown ones."""
        self.connection.verified = True


_CONTEXT: ContextVar[RequestContext] = ContextVar("request_context")


def begin(context: RequestContext) -> RequestContext:
    """Begin a request, in place of the connection's previous one, and return its context."""
    _CONTEXT.set(context)
    return context


def request_context() -> RequestContext:
    """Return the context of the request that is being answered."""
    return _CONTEXT.get()
