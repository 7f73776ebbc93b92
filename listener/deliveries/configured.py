"""The payloads of other senders: the hook's configuration says which field means what.

If the hook has one site, the body may be empty: some senders can only call a URL, such as a Deployer.
"""

from collections.abc import Mapping
from typing import Any

from listener.deliveries.delivery import Change, Delivery, Facts, Hook, Reader, Sample, Wanted, printable
from listener.deliveries.payloads import JSON, excerpt, media_type, parse, read_json, whole
from listener.errors import MalformedDeliveryError

PUBLISH = "publish"

BODY_LIMIT = 1 << 20


def _standard_webhooks(delivery: Delivery, hook: Hook) -> Facts:
    return _facts(delivery.value("webhook-id"), read_json(delivery), hook)


def _read(delivery: Delivery, hook: Hook) -> Facts:
    payload = _payload(delivery, hook)
    at = hook.payload
    if at.id_header:
        return _facts(delivery.id_of(at.id_header), payload, hook)
    key = _text(payload, at.id)
    return _facts(None if key is None else printable(f"field {at.id}", key), payload, hook)


def _payload(delivery: Delivery, hook: Hook) -> dict[str, Any]:
    """Return the body's object. If the hook has one site, a body that is not JSON is ignored."""
    if hook.site is None and delivery.body:
        return read_json(delivery)
    if not delivery.body or len(delivery.values("Content-Type")) != 1 or media_type(delivery) != JSON:
        return {}
    return parse(delivery.body)


def _facts(key: str | None, payload: Mapping[str, Any], hook: Hook) -> Facts:
    at = hook.payload
    event = _text(payload, at.event)
    event = PUBLISH if event is None else event
    ref, branch = _text(payload, at.ref), _text(payload, at.branch)
    if ref is None and branch is not None:
        ref = f"refs/heads/{branch}"
    return Facts(
        key=key,
        event=event,
        publish=publishes(event, hook),
        repository=_text(payload, at.repository),
        site=_text(payload, at.site),
        changes=None if ref is None else (Change(ref),),
    )


def publishes(event: str, hook: Hook) -> bool:
    """Return whether this hook takes the event for a publish."""
    return event in (hook.events or {PUBLISH})


def _text(payload: Mapping[str, Any], path: str) -> str | None:
    """Return the text at a path; None if there is none, or if the path is empty."""
    found: Any = payload if path else {}
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    if not isinstance(found, str):
        raise MalformedDeliveryError(f"The field {excerpt(path)} is not text.")
    return whole(path, found)


def _sample(wanted: Wanted, hook: Hook) -> Sample:
    at = hook.payload
    event = min(hook.events, default=PUBLISH)
    payload: dict[str, Any] = {}
    _put(payload, at.event, event)
    _put(payload, at.repository, wanted.repository) if hook.repositories else _put(
        payload, at.site, wanted.site
    )
    _put(payload, at.ref, wanted.ref) if wanted.ref else _put(payload, at.branch, wanted.branch)
    _put(payload, at.id, wanted.key)
    return Sample(event, payload, {at.id_header: wanted.key} if at.id_header else {})


def _put(payload: dict[str, Any], path: str, text: str) -> None:
    *above, last = path.split(".")
    for key in above:
        payload = payload.setdefault(key, {})
    if last:
        payload[last] = text


STANDARD_WEBHOOKS = Reader(_standard_webhooks, _sample, configurable=True, body_limit=BODY_LIMIT)
OWN = Reader(_read, _sample, configurable=True, body_limit=BODY_LIMIT)
