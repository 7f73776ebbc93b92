"""What a fuzz target is, and how its bytes are cut into a request: so that a seed can be read."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Target:
    """What is tried, and what to begin with."""

    try_out: Callable[[bytes], None]
    """Raises where a promise is broken. Takes any bytes, and answers most of them quickly."""
    seeds: Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Message:
    """A name on the first line, headers, an empty line, a body."""

    name: str
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> "Message":
        head, _, body = data.partition(b"\n\n")
        name, *lines = head.split(b"\n")
        headers = tuple((key, value) for key, _, value in (line.partition(b": ") for line in lines))
        return cls(name.decode("latin-1"), headers, body)

    @classmethod
    def made(cls, name: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        """The bytes of a message."""
        lines = [name.encode(), *(key + b": " + value for key, value in headers)]
        return b"\n".join(lines) + b"\n\n" + body


def raw(headers: Mapping[str, str]) -> Headers:
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()
