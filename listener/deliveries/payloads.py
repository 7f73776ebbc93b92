"""Strict reading of payloads: nothing is guessed, and messages quote only short excerpts."""

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
"""The most levels of nested objects and lists."""

DIGITS_MOST = 64
"""The most digits of a number."""

VALUES_MOST = 1_000_000
"""The most values, approximately. A small value takes many times the memory of its text."""

QUOTES_MOST = 4 * VALUES_MOST
"""The most quotation marks."""

EXCERPT_MOST = 100
"""Characters of a payload that a message may quote."""

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def read_json(delivery: Delivery) -> dict[str, Any]:
    """Return the object of a body that must be JSON."""
    found = media_type(delivery)
    if found != JSON:
        raise unread(found)
    return parse(delivery.body)


def unread(found: str) -> UnsupportedMediaError:
    """Return the error that refuses a media type."""
    return UnsupportedMediaError(f"The content type {excerpt(found)} is not supported.")


def media_type(delivery: Delivery) -> str:
    """Return the media type; raise `MalformedDeliveryError` for a charset other than UTF-8."""
    return _media_type(delivery.value("Content-Type"))


@lru_cache(64)
def _media_type(value: str) -> str:
    header = Message()
    header["Content-Type"] = value
    found = header.get_content_type()
    if found not in {JSON, FORM}:
        return found
    if "*" in value:  # RFC 2231 allows encoded and split parameters; no sender uses them.
        raise MalformedDeliveryError("A content type with split parameters is not supported.")
    charset = header.get_content_charset("utf-8")
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise MalformedDeliveryError(f"The charset {excerpt(charset)} is not supported.")
    return found


def parse(body: bytes) -> dict[str, Any]:
    """Return the body's JSON object (RFC 8259, strict); raise `MalformedDeliveryError` for anything else.

    Python's parser accepts more than JSON, and takes the last of two equal keys; both are refused here. Text
    may hold half a surrogate pair, for example if the sender has cut it: `whole` refuses it where it matters.
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
    """Raise `ValueError` for text with too many values."""
    if sum(text.count(each) for each in ",[{") > VALUES_MOST or text.count('"') > QUOTES_MOST:
        raise ValueError(f"it has more than {VALUES_MOST} values")


_NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^][{}"]++', re.DOTALL)
"""A string, complete or not, or text between brackets. It never backtracks, so hostile text is not slower."""


def _check_depth(text: str) -> None:
    """Raise `ValueError` for text that is nested too deeply; brackets in strings don't count."""
    if text.count("[") + text.count("{") <= DEPTH_MOST:
        return
    depth = 0
    for bracket in _NO_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MOST:
            raise ValueError(f"it is nested more than {DEPTH_MOST} levels deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same key twice")
    return found


def _number(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(digits: str) -> float:
        if len(digits) > DIGITS_MOST:
            raise ValueError(f"a number has more than {DIGITS_MOST} digits")
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
    """Return a field of the payload that must have this type."""
    value = payload.get(name)
    if not isinstance(value, kind):
        raise MalformedDeliveryError(f"The field {name} is not {_KINDS[kind]}.")
    if isinstance(value, str):
        whole(name, value)
    return value


_KINDS = {str: "text", bool: "true or false", list: "a list", dict: "an object"}


def whole(name: str, text: str) -> str:
    """Return a field's text; raise `MalformedDeliveryError` for half a surrogate pair in it.

    UTF-8 can't encode it, so it could not be stored.
    """
    if _HALF.search(text):
        raise MalformedDeliveryError(f"The field {excerpt(name)} holds half a surrogate pair.")
    return text


_HALF = re.compile("[\ud800-\udfff]")


def pushed(ref: str, after: Any) -> Change:
    """Return the change to a ref; an id of zeros means that the ref was deleted.

    Refs are only compared. A very long ref, or one that is invalid in git, is simply another branch: the same
    push may still contain live.
    """
    if not isinstance(after, str):
        raise MalformedDeliveryError("The id of the pushed commit is not text.")
    return Change(ref, whole("after", after), deleted=names_nothing(after))


def names_nothing(commit: str | None) -> bool:
    """Return whether an id is all zeros, of any length."""
    return bool(commit) and not str(commit).strip("0")


def listed(payload: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a field of the payload that must be a list of objects."""
    found = typed(payload, name, list)
    if not all(isinstance(each, dict) for each in found):
        raise MalformedDeliveryError(f"The field {name} is not a list of objects.")
    return found


def excerpt(text: str, most: int = EXCERPT_MOST) -> str:
    """Return a short, printable excerpt of text from outside, for a message."""
    short = text if len(text) <= most else f"{text[:most]}…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in short)
