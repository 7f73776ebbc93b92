"""Reading a request's body within limits of size and time."""

import asyncio
import json
from typing import Any

from aiohttp import HttpVersion11, web

from listener.deliveries.payloads import parse, told
from listener.errors import (
    BadRequestError,
    BodyTooLargeError,
    BodyTooSlowError,
    CompressedBodyError,
    InvalidParametersError,
    MalformedDeliveryError,
    NoRoomError,
)
from listener.request_context import Lease, request_context

API_LIMIT = 64 << 10
"""Bytes that an API call may say."""


async def read(request: web.Request, *, limit: int, seconds: float) -> bytes:
    """Return the raw body; raise when it is over `limit` bytes, slower than `seconds`, or compressed.

    Raises `ConnectionResetError` when the client has gone, `NoRoomError` when its own other bodies have left
    no room for it so long, and `BadRequestError` when its pieces are not HTTP.
    """
    _check_encoding(request)
    _demand(request.content_length or 0, limit)
    await _invite(request)
    lease = request_context().lease
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            await _collect(request, body, lease, limit)
    except web.RequestPayloadError:
        raise BadRequestError("The body is not HTTP as this server reads it.") from None
    except RuntimeError as error:
        if request.transport is not None:
            raise
        # aiohttp's word for a client that has gone before its body was looked at.
        raise ConnectionResetError from error
    except TimeoutError as error:
        if lease.waiting:
            raise NoRoomError from error
        raise BodyTooSlowError(f"The body took over {seconds:g} s.") from error
    return bytes(body)


async def _collect(request: web.Request, body: bytearray, lease: Lease, limit: int) -> None:
    """Read the body to its end; raise `BodyTooLargeError` for one of more than `limit` bytes."""
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            _demand(len(body), limit)
            await lease.hold(len(body))
    except BaseException:
        # The error's traceback keeps this frame, and aiohttp keeps the error of a client that has gone: what
        # was read would be held until the garbage collector comes by, and is not counted any more.
        body.clear()
        raise


def _demand(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLargeError(f"The body is over {limit} bytes.")


_COMPRESSIONS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
"""Those that anybody compresses a request by: https://www.iana.org/assignments/http-parameters."""


def _check_encoding(request: web.Request) -> None:
    """Raise `CompressedBodyError` unless the body comes as it is."""
    said = ",".join(request.headers.getall("Content-Encoding", [])).lower()
    codings = {each.strip() for each in said.split(",")} - {"", "identity"}
    if codings & _COMPRESSIONS:
        raise CompressedBodyError
    if codings:
        raise CompressedBodyError(
            f"The Content-Encoding {told(min(codings))} is not a compression: leave that header out at the "
            "sender. A charset belongs into Content-Type."
        )


async def uninvited(_request: web.Request) -> None:
    """Leave a client waiting that wants to be asked for its body: it is, once somebody wants to read it."""


async def _invite(request: web.Request) -> None:
    """Ask for the body where the client waits for that (RFC 9110, 10.1.1)."""
    request_context().invited = True
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # Else aiohttp took it for a part of the answer.


async def read_object(request: web.Request, *, seconds: float, empty_allowed: bool = False) -> dict[str, Any]:
    """Return the body's object in strict JSON; raise `BadRequestError` for anything else.

    What two readers read differently is refused, a key that is there twice above all: a proxy that checks the
    one must not let the other pass.
    """
    body = await read(request, limit=API_LIMIT, seconds=seconds)
    if not body.strip() and empty_allowed:
        return {}
    try:
        found = parse(body)
        json.dumps(found, ensure_ascii=False).encode()  # Half a surrogate pair can't be stored or answered.
    except (MalformedDeliveryError, UnicodeEncodeError) as error:
        raise BadRequestError from error
    return found


async def dry_run(request: web.Request, *, seconds: float) -> bool:
    """Return whether a body, which may be empty and has nothing else in it, asks for a dry run."""
    body = await read_object(request, seconds=seconds, empty_allowed=True)
    only(body, "dry_run")
    asked = body.get("dry_run", False)
    if not isinstance(asked, bool):
        raise InvalidParametersError("dry_run")
    return asked


def only(body: dict[str, Any], *known: str) -> None:
    """Raise `BadRequestError` if a body has other fields than the known ones."""
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise BadRequestError(f"Unknown field(s): {', '.join(unknown)[:200]}. Known: {', '.join(known)}.")
