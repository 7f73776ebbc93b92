"""Reading a request's body within limits of size and time."""

import asyncio
import json
from typing import TypeVar

from aiohttp import HttpVersion11, web
from pydantic import BaseModel, ValidationError

from listener.deliveries.payloads import excerpt, parse
from listener.errors import (
    BadRequestError,
    BodyTooLargeError,
    BodyTooSlowError,
    CompressedBodyError,
    InvalidParametersError,
    MalformedDeliveryError,
    NoRoomError,
    RequestError,
)
from listener.request_context import UNRESERVED, Reservation, request_context

API_LIMIT = 64 << 10
"""Bytes in the body of an API call, at most."""

B = TypeVar("B", bound=BaseModel)


class BodyReader:
    """Reads bodies within `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def read(self, request: web.Request, *, limit: int = API_LIMIT) -> bytes:
        """Return the raw body; raise if it is over `limit` bytes, too slow, or compressed.

        Raises `ConnectionResetError` if the client has gone, `NoRoomError` if the client's other bodies leave
        no memory for this one in time, and `BadRequestError` if the body is not valid HTTP.
        """
        _check_encoding(request)
        _check_size(request.content_length or 0, limit)
        await _invite(request)
        if (whole := _arrived(request)) is not None:
            return whole
        memory = request_context().memory
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                await _collect(request, body, memory, limit)
        except web.RequestPayloadError:
            raise BadRequestError("The body is not valid HTTP.") from None
        except RuntimeError as error:
            if request.transport is not None:
                raise
            # aiohttp raises this for a client that has gone before its body was read.
            raise ConnectionResetError from error
        except TimeoutError as error:
            if memory.waiting:
                raise NoRoomError from error
            raise BodyTooSlowError(f"The body did not arrive within {self._seconds:g} s.") from error
        return bytes(body)

    async def read_as(self, request: web.Request, model: type[B], *, empty_allowed: bool = False) -> B:
        """Return the body, a JSON object, as a model; raise `BadRequestError` or `InvalidParametersError`.

        JSON that two parsers may read differently is refused, such as an object with the same key twice: a
        proxy that checks one value must not let the other one through.
        """
        body = await self.read(request)
        try:
            found = {} if empty_allowed and not body.strip() else parse(body)
            # Half a surrogate pair can't be stored or answered.
            json.dumps(found, ensure_ascii=False).encode()
        except (MalformedDeliveryError, UnicodeEncodeError) as error:
            raise BadRequestError from error
        try:
            return model.model_validate(found)
        except ValidationError as error:
            raise _wrong(error, model) from None


def _wrong(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """Return what is wrong with the fields of a body: unknown names first."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    unknown = sorted(str(each["loc"][0]) for each in problems if each["type"] == "extra_forbidden")
    if unknown:
        known = ", ".join(model.model_fields)
        return BadRequestError(f"Unknown field(s): {', '.join(unknown)[:200]}. Known: {known}.")
    return InvalidParametersError(*dict.fromkeys(str(each["loc"][0]) for each in problems))


def _arrived(request: web.Request) -> bytes | None:
    """Return a small body that has arrived whole, most of them: nothing is to be waited for."""
    content = request.content
    if not content.is_eof() or content.exception() is not None or request.content_length is None:
        return None
    return content.read_nowait() if request.content_length <= UNRESERVED else None


async def _collect(request: web.Request, body: bytearray, memory: Reservation, limit: int) -> None:
    """Read the body to its end; raise `BodyTooLargeError` if it is over `limit` bytes."""
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            _check_size(len(body), limit)
            await memory.hold(len(body))
    except BaseException:
        # The error's traceback keeps this frame alive, and aiohttp keeps the error of a client that has gone.
        # Without this, the bytes would stay in memory until the next garbage collection, uncounted.
        body.clear()
        raise


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLargeError(f"The body is over {limit} bytes.")


_COMPRESSIONS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"}
"""The compressions of HTTP: https://www.iana.org/assignments/http-parameters."""


def _check_encoding(request: web.Request) -> None:
    """Raise `CompressedBodyError` for a body with a content coding."""
    if "Content-Encoding" not in request.headers:
        return
    said = ",".join(request.headers.getall("Content-Encoding")).lower()
    codings = {each.strip() for each in said.split(",")} - {"", "identity"}
    if codings & _COMPRESSIONS:
        raise CompressedBodyError
    if codings:
        raise CompressedBodyError(
            f"The Content-Encoding {excerpt(min(codings))} is not a compression: leave that header out "
            "at the sender. A charset belongs in Content-Type."
        )


async def answer_expect_later(_request: web.Request) -> None:
    """Do not answer `Expect: 100-continue` yet: `_invite` does, when a handler reads the body."""


async def _invite(request: web.Request) -> None:
    """Ask the client for the body if it waits to be asked (RFC 9110, 10.1.1)."""
    request_context().invited = True
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # Else aiohttp counts it as part of the answer.
