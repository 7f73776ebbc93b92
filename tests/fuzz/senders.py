"""What strangers send: signatures that must not verify, deliveries that must be read or refused."""

import json
from collections.abc import Iterator
from typing import Any

from listener.deliveries import (
    READERS,
    Delivery,
    Facts,
    Hook,
    Ignored,
    Wanted,
    kept_facts,
    kept_headers,
    read,
    select,
)
from listener.errors import MalformedDeliveryError, UnsupportedMediaError
from listener.signatures import SCHEMES, Accepted, Rejected, Request, sign, verify
from listener.sites import Environment, Policy, RepositoryAddress, Site, SitePattern, Sites
from tests.fuzz.target import Message, Target, as_json, raw
from tests.vectors import OURS, body_of, form_of, headers_of, request_of, scheme_of, secrets_of

NOW = 1_700_000_000.0

VECTORS = {vector["name"]: vector for vector in OURS}

WITHOUT_BODY = {"azure-devops", "basic", "bearer", "path"}
"""The schemes whose proof is a credential: it goes with any body."""


def _secrets(name: str) -> tuple[str, tuple[bytes, ...]]:
    vector = VECTORS[name]
    return scheme_of(vector), tuple(secret.encode() for secret in secrets_of(vector))


def _signed_bodies() -> dict[tuple[bytes, ...], set[bytes]]:
    """The bodies that somebody has signed, by the secrets that were used for that."""
    found: dict[tuple[bytes, ...], set[bytes]] = {}
    for name, vector in VECTORS.items():
        found.setdefault(_secrets(name)[1], set()).add(body_of(vector))
    return found


SIGNED = _signed_bodies()


def _bodied(scheme: str, headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Whether what is accepted covers the body: GitLab's token does not, its signature does."""
    token = scheme == "gitlab" and any(key.lower() == b"x-gitlab-token" for key, _ in headers)
    return scheme not in WITHOUT_BODY and not token


def try_signatures(data: bytes) -> None:
    """The name is that of a vector, whose secrets and time count: nobody can sign anything else with them."""
    message = Message.of(data)
    if message.name not in VECTORS:
        return
    vector = VECTORS[message.name]
    scheme, secrets = _secrets(message.name)
    request = Request(message.headers, message.body)
    verdict = verify(scheme, secrets, request, vector.get("now_unix", NOW), form_of(vector))
    assert isinstance(verdict, Accepted | Rejected)
    if isinstance(verdict, Accepted) and _bodied(scheme, message.headers):
        assert message.body in SIGNED[secrets], "a body verifies that nobody has signed"


def signature_seeds() -> Iterator[bytes]:
    for name, vector in VECTORS.items():
        yield Message.made(name, request_of(vector).headers, body_of(vector))


def _environment(name: str, *, follow: bool) -> Environment:
    address = RepositoryAddress("studio", "/srv/mysite")
    return Environment.of("mysite", name, address, "live", Policy.FORWARD, [(address, name)], follow=follow)


_STAGING, _QA = _environment("staging", follow=True), _environment("qa", follow=False)
_MYSITE = Site("mysite", _STAGING.legs[0].repository, "live", {"staging": _STAGING, "qa": _QA})
SITES = Sites.of([_MYSITE], [SitePattern("by-*", _MYSITE)])

_SELECTED: tuple[dict[str, Any], ...] = (
    {"repositories": {"acme/mysite": "mysite", "acme/{site}": "{site}"}},
    {"site": "mysite"},
    {"sites": frozenset({"mysite", "by-*"})},
)
HOOKS = {
    f"{scheme} {number}": Hook("fuzzed", scheme, (b"s",), **selected)
    for scheme, reader in READERS.items()
    for number, selected in enumerate(_SELECTED)
    if next(iter(selected)) in reader.selectors
}


def _check_shown(text: str) -> None:
    assert text.isprintable(), "a text that would break a line"


def try_deliveries(data: bytes) -> None:
    """The name is that of a hook: what it is sent is read, or refused in one of two ways."""
    message = Message.of(data)
    hook = HOOKS.get(message.name)
    if hook is None:
        return
    delivery = Delivery("fuzzed", message.headers, message.body, NOW)
    try:
        facts = read(hook, delivery)
    except (MalformedDeliveryError, UnsupportedMediaError) as error:
        _check_shown(error.message)
        return
    assert isinstance(facts, Facts)
    json.dumps([kept_facts(facts), kept_headers(delivery)], ensure_ascii=False).encode()
    selected = select(facts, hook, SITES)
    if isinstance(selected, Ignored):
        _check_shown(selected.reason)
    else:
        assert all(environment.follow for environment in selected)
        assert selected


def delivery_seeds() -> Iterator[bytes]:
    for name, hook in HOOKS.items():
        wanted = Wanted("key-1", "acme/mysite", "mysite", None, "live", "1" * 40, "2" * 40)
        reader = READERS[hook.scheme]
        for sample in filter(None, (reader.sample(wanted, hook), reader.ping)):
            secret = b"whsec_" + b"A" * 32 if hook.scheme == "standard-webhooks" else b"user:password0123"
            body = as_json(sample.payload)
            headers = {**sample.headers, **sign(hook.scheme, secret, "key-1", sample.event, body, NOW)}
            yield Message.made(name, raw(headers), body)
    for vector in OURS:
        for name, hook in HOOKS.items():
            if hook.scheme == scheme_of(vector):
                yield Message.made(name, headers_of(vector), body_of(vector))


assert {hook.scheme for hook in HOOKS.values()} == set(SCHEMES)

TARGETS = {
    "signatures": Target(try_signatures, signature_seeds),
    "deliveries": Target(try_deliveries, delivery_seeds),
}
