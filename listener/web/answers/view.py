"""What all models of answers and bodies have in common, and the answers that are errors."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticSerializationError


def rfc3339(at: float) -> str:
    """Return Unix seconds as RFC 3339, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _moment(at: Any) -> Any:
    return rfc3339(at) if isinstance(at, float | int) else at


Moment = Annotated[
    str,
    BeforeValidator(_moment),
    Field(json_schema_extra={"format": "date-time"}, description="RFC 3339, in UTC"),
]
"""A time: built from Unix seconds, written as text."""
Count = Annotated[int, Field(ge=0)]
Texts = tuple[str, ...]
Next = Annotated[str | None, Field(description="`after` of the next page; null on the last page")]
Before = Annotated[
    str | None, Field(description="an older name of `next`", json_schema_extra={"deprecated": True})
]


class View(BaseModel):
    """An answer. Later versions may add fields."""

    # Built when it is first needed: the start of the listener does not wait for it.
    model_config = ConfigDict(from_attributes=True, defer_build=True)

    @classmethod
    def of_object(cls, found: object, **derived: Any) -> Self:
        """Return the view of an object: `derived` has what is not an attribute of the same name."""
        return cls.model_validate(_Derived(found, derived) if derived else found)

    def to_json(self) -> bytes:
        """Return the answer's body."""
        try:
            # Only printable ASCII: a terminal that shows the answer obeys no character in it.
            body = self.__pydantic_serializer__.to_json(self, ensure_ascii=True)
            return body.replace(b"\x7f", b"\\u007f")
        except PydanticSerializationError:
            # A path on a host may hold bytes that are not UTF-8: each is half a surrogate pair in Python's
            # text, which JSON can hold only escaped. One such site must not fail the page of all.
            return json.dumps(self.model_dump(mode="json")).encode()


class Body(BaseModel):
    """The body of a request: these fields and no others."""

    # Python's regular expressions agree with `str.strip` about what a space is.
    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True, regex_engine="python-re")


class _Derived:
    """An object with some attributes replaced or added."""

    __slots__ = ("_derived", "_found")

    def __init__(self, found: object, derived: dict[str, Any]) -> None:
        self._found = found
        self._derived = derived

    def __getattr__(self, name: str) -> Any:
        return self._derived[name] if name in self._derived else getattr(self._found, name)


def absent(value: object) -> bool:
    """Return whether an optional field is left out of the answer: it is None or empty."""
    return value is None or value in ("", ())


class Problem(View):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field("", exclude_if=absent, description="what programs match on")
    detail: str = Field("", exclude_if=absent)
    remedy: str = Field("", exclude_if=absent, description="what to do about it")


class Message(View):
    """Studio's own words."""

    message: str

    def to_json(self) -> bytes:
        """Return the answer's body, with the space that the call's documentation shows.

        Callers that compare the body as text, as `{"message": "OK"}`, keep working.
        """
        return super().to_json().replace(b'{"message":', b'{"message": ', 1)
