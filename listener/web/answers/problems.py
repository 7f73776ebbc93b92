"""Errors: problem details, and Studio's own form."""

from pydantic import Field

from listener.web.answers.view import View, absent


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
