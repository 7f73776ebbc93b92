"""Deliveries: one request to a hook, and what a verified one says.

The sender's reading of a payload stands here, beside the rule of what it may select. Nothing of a payload
goes further than a comparison or a look-up: a ref is compared with the configured branch, a repository or a
site id is looked up in the configuration.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from email.message import Message
from typing import Any, TypeVar
from urllib.parse import parse_qs

from listener.errors import MalformedDeliveryError, UnsupportedMediaError
from listener.sites import Environment, Site, Sites

T = TypeVar("T")

DEPTH_MOST = 64
"""How deep a payload's objects and lists may nest."""

DIGITS_MOST = 64
"""How long a payload's numbers may be."""

REF_BYTES_MOST = 255

KEY_MOST = 256
"""Characters of a sender's delivery id."""

TOLD_MOST = 100
"""Characters of a payload that a reason may repeat."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request to a hook, as it arrived."""

    hook: str
    headers: tuple[tuple[bytes, bytes], ...]
    """Names (any case) and values, in order, duplicates included."""
    body: bytes
    received_at: float
    """Unix seconds."""

    def values(self, name: str) -> list[bytes]:
        """Return every value of the header `name`."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def value(self, name: str) -> str:
        """Return the one value of a header that must be there once; raise `MalformedDeliveryError`."""
        values = self.values(name)
        if len(values) != 1:
            raise MalformedDeliveryError(f"The header {name} is there {len(values)} times, not once.")
        text = values[0].decode("latin-1")
        if not text or len(text) > KEY_MOST or not text.isprintable():
            raise MalformedDeliveryError(f"The header {name} is not 1 to {KEY_MOST} printable characters.")
        return text


@dataclass(frozen=True, slots=True)
class Hook:
    """A configured webhook endpoint: a scheme, its secrets, and what it may select."""

    name: str
    scheme: str
    secrets: tuple[bytes, ...] = field(repr=False)
    repositories: Mapping[str, str] = field(default_factory=dict)
    """The sender's full repository names, each with the site that it mirrors."""
    sites: frozenset[str] = frozenset()
    """The sites, and patterns of sites, that a payload which names a site may select."""
    site: str | None = None
    """The one site that every delivery selects, for payloads that name none."""
    body_limit: int = 1 << 20
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verified payload says, as far as it matters."""

    key: str | None
    """The sender's delivery id."""
    event: str
    publish: bool
    """Whether this kind of event tells of new commits at all."""
    repository: str | None = None
    site: str | None = None
    ref: str | None = None
    """A full ref; None when the payload speaks of live without naming a ref."""
    after: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """A good delivery that selects nothing."""

    reason: str


def read(hook: Hook, delivery: Delivery) -> Facts:
    """Return what a verified delivery says; raise `MalformedDeliveryError`, `UnsupportedMediaError`."""
    return READERS[hook.scheme](delivery)


def select(facts: Facts, hook: Hook, sites: Sites) -> tuple[Environment, ...] | Ignored:
    """Return the environments that a delivery asks to sync, at least one, or why it asks for none."""
    if not facts.publish:
        return Ignored(f"the event {_told(facts.event)} tells of no publish")
    site = _site(facts, hook, sites)
    if isinstance(site, Ignored):
        return site
    if facts.ref is not None and facts.ref != f"refs/heads/{site.live}":
        return Ignored(f"{_told(facts.ref)} is not the live branch of {site.id}")
    if facts.deleted:
        return Ignored(f"the live branch of {site.id} was deleted")
    return site.following or Ignored(f"no environment of {site.id} follows live")


def _site(facts: Facts, hook: Hook, sites: Sites) -> Site | Ignored:
    """Return the one site that a delivery can speak of."""
    if facts.repository is not None:
        site_id = hook.repositories.get(facts.repository)
        if site_id is None:
            return Ignored(f"the hook does not cover the repository {_told(facts.repository)}")
    elif hook.site is not None:
        site_id = hook.site
    elif facts.site is not None and _covers(hook, facts.site, sites):
        site_id = facts.site
    else:
        return Ignored(f"the hook does not cover the site {_told(facts.site or '')}")
    return (
        sites.site(site_id) if site_id in sites else Ignored(f"the site {_told(site_id)} is not configured")
    )


def _covers(hook: Hook, site_id: str, sites: Sites) -> bool:
    """Return whether the hook names the site, or the pattern that stands for it."""
    pattern = sites.pattern(site_id)
    return site_id in hook.sites or (pattern is not None and pattern.text in hook.sites)


def _github(delivery: Delivery) -> Facts:
    """Read a delivery of GitHub.

    https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
    """
    key = delivery.value("X-GitHub-Delivery")
    event = delivery.value("X-GitHub-Event")
    payload = _parse(_github_json(delivery))
    if event != "push":
        return Facts(key=key, event=event, publish=False)
    repository = _typed(payload, "repository", dict)
    return Facts(
        key=key,
        event=event,
        publish=True,
        repository=_typed(repository, "full_name", str),
        ref=_ref(_typed(payload, "ref", str)),
        after=_typed(payload, "after", str) if "after" in payload else None,
        deleted=_typed(payload, "deleted", bool) if "deleted" in payload else False,
    )


def _github_json(delivery: Delivery) -> bytes:
    """Return the JSON of a body that may be a form around it."""
    media_type = _media_type(delivery)
    if media_type == "application/json":
        return delivery.body
    if media_type != "application/x-www-form-urlencoded":
        raise UnsupportedMediaError(f"The content type {_told(media_type)} is not read here.")
    try:
        text = delivery.body.decode("ascii")
        form = parse_qs(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8)
    except ValueError as error:
        raise MalformedDeliveryError("The form can't be read.") from error
    payloads = form.get("payload", [])
    if len(payloads) != 1:
        raise MalformedDeliveryError(f"The form has the field payload {len(payloads)} times, not once.")
    return payloads[0].encode()


def _standard_webhooks(delivery: Delivery) -> Facts:
    """Read a body of our own definition: `site_id`, and optionally `event`, `environment` or `ref`."""
    media_type = _media_type(delivery)
    if media_type != "application/json":
        raise UnsupportedMediaError(f"The content type {_told(media_type)} is not read here.")
    payload = _parse(delivery.body)
    event = _typed(payload, "event", str) if "event" in payload else "publish"
    ref = _typed(payload, "ref", str) if "ref" in payload else None
    if "environment" in payload and ref is None:
        ref = f"refs/heads/{_typed(payload, 'environment', str)}"
    return Facts(
        key=delivery.value("webhook-id"),
        event=event,
        publish=event == "publish",
        site=_typed(payload, "site_id", str) if "site_id" in payload else None,
        ref=None if ref is None else _ref(ref),
    )


READERS: Mapping[str, Callable[[Delivery], Facts]] = {
    "github": _github,
    "standard-webhooks": _standard_webhooks,
}
"""How each scheme's payloads are read."""


def _media_type(delivery: Delivery) -> str:
    """Return the media type; raise `MalformedDeliveryError` for a charset other than UTF-8."""
    header = Message()
    header["Content-Type"] = delivery.value("Content-Type")
    charset = header.get_content_charset("utf-8")
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise MalformedDeliveryError(f"The charset {_told(charset)} is not read here.")
    return header.get_content_type()


def _parse(body: bytes) -> dict[str, Any]:
    """Return the object that the body is in strict JSON (RFC 8259); raise `MalformedDeliveryError`.

    Python's reader takes more than JSON, and of two equal keys the last: all of that is refused.
    """
    try:
        text = body.decode("utf-8")
        _check_depth(text)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_number(int),
            parse_float=_number(float),
            parse_constant=_no_constant,
        )
        _check_surrogates(text, value)
    except (ValueError, RecursionError) as error:
        raise MalformedDeliveryError(f"The body is not strict JSON: {_told(str(error))}") from error
    if not isinstance(value, dict):
        raise MalformedDeliveryError("The body is not a JSON object.")
    return value


_NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^][{}"]++', re.DOTALL)
"""A string, ended or not, or what stands between. It never backtracks: hostile text takes no longer."""


def _check_depth(text: str) -> None:
    """Raise `ValueError` for text that nests too deep, brackets in strings not counted."""
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


def _check_surrogates(text: str, value: Any) -> None:
    """Raise `ValueError` if an escape made half a surrogate pair, which UTF-8 can't carry on."""
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode()


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


def _typed(payload: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a field of the payload that must be of this kind."""
    value = payload.get(name)
    if not isinstance(value, kind):
        raise MalformedDeliveryError(f"The field {name} is no {kind.__name__}.")
    return value


_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^/|/$|\.$")


def _ref(ref: str) -> str:
    """Return a full ref if git could have it (git-check-ref-format(1)); raise `MalformedDeliveryError`."""
    if len(ref.encode()) > REF_BYTES_MOST or not ref.startswith("refs/") or _NO_REF.search(ref):
        raise MalformedDeliveryError(f"{_told(ref)} is no ref.")
    return ref


KEPT_HEADERS = (
    "content-type",
    "user-agent",
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "webhook-id",
    "webhook-timestamp",
)
"""The headers that are stored with a delivery; never a signature, never a credential."""


def kept_headers(delivery: Delivery) -> dict[str, str]:
    """Return the headers to store with a delivery."""
    found = {name: delivery.values(name) for name in KEPT_HEADERS}
    return {name: _told(values[0].decode("latin-1")) for name, values in found.items() if values}


def kept_facts(facts: Facts) -> dict[str, Any]:
    """Return the facts to store with a delivery: no text of a sender's is kept at any length."""
    kept = asdict(facts)
    return {name: _told(value) if isinstance(value, str) else value for name, value in kept.items()}


def _told(text: str) -> str:
    """Return text from outside as a reason may repeat it: short, and with printable characters only."""
    short = text if len(text) <= TOLD_MOST else f"{text[:TOLD_MOST]}…"
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in short)
