"""Hooks: what the settings of one demand of each other, and the hook that they make."""

from collections.abc import Iterator, Mapping
from typing import Any

from listener.config.model import HmacSection, HookEntry, PayloadSection
from listener.config.problems import Location, Problem, exposed, nearest, shown
from listener.config.references import Resolution, find
from listener.deliveries import FORGES, READERS, Hook, Payload, excerpt
from listener.networks import networks_of
from listener.signatures import SCHEMES, Form, weakness
from listener.signatures.configured import BODY, TIMESTAMP
from listener.sites import PLACEHOLDER

SELECTORS: Mapping[str, tuple[str, ...]] = {name: reader.selectors for name, reader in READERS.items()}
"""The settings of which a hook of a scheme has exactly one: they say what its deliveries may select."""

HMAC = "hmac"
"""The scheme whose form the hook describes."""

CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers that are no id: an id is stored and shown."""

_WITHOUT_ID = "standard-webhooks"


def broken_hook(location: Location, hook: dict[str, Any], resolution: Resolution) -> Iterator[Problem]:
    """Return every rule that a hook breaks."""
    scheme = hook.get("scheme")
    if not isinstance(scheme, str):
        return
    if scheme not in SELECTORS:
        yield Problem((*location, "scheme"), f"is no scheme; {nearest(scheme, SELECTORS)}")
        return
    yield from _selection(location, hook, scheme)
    yield from _mirrors(location, hook, scheme)
    yield from _belonging(location, hook, scheme)
    yield from _payload((*location, "payload"), hook, scheme)
    if isinstance(hook.get(HMAC), dict):
        yield from _form((*location, HMAC), hook[HMAC])
    for at, secret in find(hook, "secrets.*"):
        place = (*location, *at)
        if isinstance(secret, str) and place not in resolution.unresolved:
            fault = SCHEMES[scheme].fault(secret.encode())
            if fault:
                yield Problem(place, fault)
        if place in resolution.exposed:
            yield exposed(place, resolution.exposed[place])


def _selection(location: Location, hook: dict[str, Any], scheme: str) -> Iterator[Problem]:
    wanted = SELECTORS[scheme]
    given = [key for key in ("repositories", "site", "sites") if hook.get(key)]
    for key in given:
        if key not in wanted:
            yield Problem(
                (*location, key), f"is no setting of the scheme {scheme}; write {' or '.join(wanted)}"
            )
    fitting = [key for key in given if key in wanted]
    if not fitting:
        yield Problem(location, f"selects no site; write {' or '.join(wanted)}")
    if len(fitting) > 1:
        yield Problem(location, f"has {' and '.join(fitting)}; write one of them")


def _mirrors(location: Location, hook: dict[str, Any], scheme: str) -> Iterator[Problem]:
    """Yield the names and patterns of repositories that do not tell which site is meant."""
    first: dict[str, Location] = {}
    for at, site in find(hook, "repositories.*"):
        name, place = str(at[-1]).casefold(), (*location, *at)
        if scheme in FORGES and name.endswith(".git"):
            yield Problem(place, "ends with .git, which is no part of the name; write owner/name alone")
        if scheme in FORGES and first.setdefault(name, place) != place:
            yield Problem(
                place, f"differs in case only from {shown(first[name])}, and names one repository; remove it"
            )
        counts = str(at[-1]).count(PLACEHOLDER), site.count(PLACEHOLDER) if isinstance(site, str) else 0
        if counts not in {(0, 0), (1, 1)}:
            yield Problem(
                place,
                "must hold {site} once on both sides or on none; write one such as 'acme/{site}': '{site}'",
            )


def _belonging(location: Location, hook: dict[str, Any], scheme: str) -> Iterator[Problem]:
    """Yield the settings that this scheme has not, and the one that it can't do without."""
    for key in ("payload", "events"):
        if hook.get(key) and not READERS[scheme].configurable:
            yield Problem((*location, key), f"is no setting of the scheme {scheme}; remove it")
    if HMAC in hook and scheme != HMAC:
        yield Problem((*location, HMAC), f"is no setting of the scheme {scheme}; remove it")
    if scheme == HMAC and hook.get(HMAC) is None:
        yield Problem((*location, HMAC), "is missing: a map of header and of how it is made")


def _payload(location: Location, hook: dict[str, Any], scheme: str) -> Iterator[Problem]:
    payload = hook.get("payload")
    places = payload if isinstance(payload, dict) else {}
    if READERS[scheme].configurable and bool(hook.get("repositories")) != bool(places.get("repository")):
        yield Problem(
            (*location, "repository"), "goes with the hook's repositories; write both of them, or none"
        )
    given = [key for key in ("id", "id_header") if places.get(key)]
    if given and scheme == _WITHOUT_ID:
        yield Problem((*location, given[0]), f"is no setting of the scheme {scheme}: its id is webhook-id")
    if len(given) > 1:
        yield Problem((*location, "id_header"), "stands beside id; write one of them")
    if str(places.get("id_header")).lower() in CREDENTIALS:
        yield Problem((*location, "id_header"), "holds a credential; write the header of the delivery's id")


def _form(location: Location, form: dict[str, Any]) -> Iterator[Problem]:
    listed, timed = (
        form.get("signature_key"),
        [k for k in ("timestamp_key", "timestamp_header") if form.get(k)],
    )
    if len(timed) > 1:
        yield Problem((*location, "timestamp_key"), "stands beside timestamp_header; write one of them")
    if form.get("timestamp_key") and not listed:
        yield Problem((*location, "timestamp_key"), "needs signature_key, the key of the signature beside it")
    if listed and form.get("prefix"):
        yield Problem((*location, "prefix"), "has no meaning in a list of keys; remove it, or signature_key")
    if listed and listed == form.get("timestamp_key"):
        yield Problem((*location, "timestamp_key"), "is the signature's key too; write the timestamp's own")
    signed = form.get("signed")
    if not isinstance(signed, str):
        return
    if signed.count(BODY) != 1 or signed.count(TIMESTAMP) != int(bool(timed)):
        wanted = f"{BODY} and {TIMESTAMP}" if timed else f"{BODY}, and no {TIMESTAMP} where there is none,"
        yield Problem(
            (*location, "signed"), f"must hold {wanted} once; write one such as {_EXAMPLES[bool(timed)]}"
        )


_EXAMPLES = {True: f"'{TIMESTAMP}.{BODY}'", False: f"'{BODY}'"}


def weak_secrets(hooks: Mapping[str, HookEntry]) -> Iterator[str]:
    """Yield a warning for each secret that can be guessed, or that is not the text that the sender has."""
    for name, entry in hooks.items():
        for index, secret in enumerate(entry.secrets):
            if fault := weakness(entry.scheme, name, secret):
                yield f"{shown(('hooks', name, 'secrets', index))}: {fault}"


def made(name: str, entry: HookEntry, resolution: Resolution) -> Hook:
    """Return the hook that a right entry describes."""
    return Hook(
        name,
        entry.scheme,
        tuple(secret.encode() for secret in entry.secrets),
        repositories=dict(entry.repositories),
        sites=frozenset(entry.sites),
        site=entry.site,
        body_limit=READERS[entry.scheme].body_limit,
        branch=entry.branch,
        environments=frozenset(entry.environments),
        events=frozenset(entry.events),
        form=None if entry.hmac is None else _made_form(entry.hmac),
        payload=_made_payload(entry.payload),
        secret_names=tuple(
            excerpt(resolution.references.get(("hooks", name, "secrets", index), ""))
            for index in range(len(entry.secrets))
        ),
        networks=networks_of(entry.networks),
    )


def _made_form(section: HmacSection) -> Form:
    timed = section.timestamp_key or section.timestamp_header
    return Form(
        section.header,
        section.algorithm,
        section.encoding,
        prefix=section.prefix,
        signature_key=section.signature_key or "",
        timestamp_key=section.timestamp_key or "",
        timestamp_header=section.timestamp_header or "",
        signed=section.signed or (f"{TIMESTAMP}.{BODY}" if timed else BODY),
        tolerance=section.tolerance,
    )


def _made_payload(section: PayloadSection) -> Payload:
    return Payload(
        site=section.site,
        repository=section.repository or "",
        ref=section.ref,
        branch=section.branch,
        event=section.event,
        id=section.id or "",
        id_header=section.id_header or "",
    )
