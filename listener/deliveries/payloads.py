"""Reading what a sender wrote, strictly: nothing is guessed, and nothing of it is repeated at length."""

import json
import math
import re
from collections.abc import Callable, Mapping
from email.message import Message
from functools import lru_cache
from typing import Any, TypeVar

from listener.deliveries.delivery import Change, Delivery
from listener.errors import MalformedDeliveryError, UnsupportedMediaError

T = TypeVar("T")

DEPTH_MOST = 64
"""How deep a payload's objects and lists may nest."""

DIGITS_MOST = 64
"""How long a payload's numbers may be."""

VALUES_MOST = 1_000_000
"""How many values, about, a payload may have: small ones take many times the room of their text."""

QUOTES_MOST = 4 * VALUES_MOST
"""How many quotation marks, likewise."""

EXCERPT_MOST = 100
"""Characters of a payload that a reason may repeat."""

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def read_json(delivery: Delivery) -> dict[str, Any]:
    """Return the object of a body that must be JSON."""
    found = media_type(delivery)
    if found != JSON:
        raise unread(found)
    return parse(delivery.body)


def unread(found: str) -> UnsupportedMediaError:
    """Return the error that refuses a media type."""
    return UnsupportedMediaError(f"The content type {excerpt(found)} is not read here.")


def media_type(delivery: Delivery) -> str:
    """Return the media type; raise `MalformedDeliveryError` for text that is not in UTF-8."""
    return _media_type(delivery.value("Content-Type"))


@lru_cache(64)
def _media_type(value: str) -> str:
    header = Message()
    header["Content-Type"] = value
    found = header.get_content_type()
    if found not in {JSON, FORM}:
        return found
    if "*" in value:  # RFC 2231 lets a parameter come encoded and in pieces; no sender's does.
        raise MalformedDeliveryError("A content type with parameters in pieces is not read here.")
    charset = header.get_content_charset("utf-8")
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise MalformedDeliveryError(f"The charset {excerpt(charset)} is not read here.")
    return found


def parse(body: bytes) -> dict[str, Any]:
    """Return the object that the body is in strict JSON (RFC 8259); raise `MalformedDeliveryError`.

    Python's reader takes more than JSON, and of two equal keys the last: all of that is refused. Text may
    hold half a surrogate pair, as where a sender has cut a message: `whole` refuses it in what is read.
    """
    try:
        text = body.decode("utf-8-sig")  # A byte order mark means nothing (RFC 8259, 8.1).
        _check_size(text)
        _check_depth(text)
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedDeliveryError(f"The body is not strict JSON: {excerpt(str(error))}") from error
    if not isinstance(value, dict):
        raise MalformedDeliveryError("The body is not a JSON object.")
    return value


def _check_size(text: str) -> None:
    """Raise `ValueError` for text with more values than are read."""
    if sum(text.count(each) for each in ",[{") > VALUES_MOST or text.count('"') > QUOTES_MOST:
        raise ValueError(f"it has over {VALUES_MOST} values")


_NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^][{}"]++', re.DOTALL)
"""A string, ended or not, or what stands between. It never backtracks: hostile text takes no longer."""


def _check_depth(text: str) -> None:
    """Raise `ValueError` for text that nests too deep, brackets in strings not counted."""
    if text.count("[") + text.count("{") <= DEPTH_MOST:
        return
    depth = 0
    for bracket in _NO_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MOST:
            raise ValueError(f"it nests over {DEPTH_MOST} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _number(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(digits: str) -> float:
        if len(digits) > DIGITS_MOST:
            raise ValueError(f"a number has over {DIGITS_MOST} digits")
        number = kind(digits)
        if not math.isfinite(number):
            raise ValueError("a number is out of range")
        return number

    return read


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_number(int),
    parse_float=_number(float),
    parse_constant=_no_constant,
)


def typed(payload: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a field of the payload that must be of this kind."""
    value = payload.get(name)
    if not isinstance(value, kind):
        raise MalformedDeliveryError(f"The field {name} is not {_KINDS[kind]}.")
    if isinstance(value, str):
        whole(name, value)
    return value


_KINDS = {str: "text", bool: "true or false", list: "a list", dict: "an object"}


def whole(name: str, text: str) -> str:
    """Return a field's text; raise `MalformedDeliveryError` for half a surrogate pair in it.

    UTF-8 can't carry it: it could be neither stored nor answered.
    """
    if _HALF.search(text):
        raise MalformedDeliveryError(f"The field {excerpt(name)} has half a character.")
    return text


_HALF = re.compile("[\ud800-\udfff]")


def pushed(ref: str, after: Any) -> Change:
    """Return the change to a ref, which the id of no commit (all zeros) says was deleted.

    A ref is only ever compared. One that is very long, or that git could not have, is another branch: it is
    no reason to refuse the push of live that may stand beside it.
    """
    if not isinstance(after, str):
        raise MalformedDeliveryError("The id of the pushed commit is not text.")
    return Change(ref, whole("after", after), deleted=names_nothing(after))


def names_nothing(commit: str | None) -> bool:
    """Return whether an id is all zeros, whatever the length of its hash."""
    return bool(commit) and not str(commit).strip("0")


def listed(payload: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a field of the payload that must be a list of objects."""
    found = typed(payload, name, list)
    if not all(isinstance(each, dict) for each in found):
        raise MalformedDeliveryError(f"The field {name} is not a list of objects.")
    return found


def excerpt(text: str, most: int = EXCERPT_MOST) -> str:
    """Return text from outside as a reason may repeat it: short, and with printable characters only."""
    short = text if len(text) <= most else f"{text[:most]}…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in short)
