"""`hook send`: a signed test delivery to the running listener, as the real sender would make it."""

import argparse
import json
import secrets
import time
import uuid
from http import HTTPStatus

from listener import signatures
from listener.cli import address
from listener.cli.client import Answer, connected, opened
from listener.cli.client import path as api
from listener.cli.failures import DONE, FAILED, RefusedByListenerError, UsageError
from listener.cli.printing import document, note, say
from listener.config.references import resolved
from listener.config.settings import load_hook
from listener.deliveries import READERS, Hook, Sample, Wanted
from listener.errors import ListenerError
from listener.signatures.standard_webhooks import PUBLIC
from listener.sites import PLACEHOLDER, Sites

LOOKS = 3
LOOK_PAUSE = 1.0
"""Seconds between two looks."""


def send(arguments: argparse.Namespace) -> int:
    """Send the delivery and print the listener's answer."""
    path = address.config_path(arguments)
    hook, sites = load_hook(path, arguments.hook, signing=arguments.secret is None)
    _refuse_options(hook, arguments)
    secret = _secret(hook, arguments.secret)
    key = arguments.id or str(uuid.uuid4())
    sample = _sample(sites, hook, arguments, key)
    body = json.dumps(sample.payload).encode()
    headers = signatures.sign(hook.scheme, secret, key, sample.event, body, time.time(), hook.form)
    where = f"/hooks/{hook.name}" + (f"/{secret.decode()}" if hook.scheme == signatures.PATH else "")
    client = opened(address.listener(arguments), {})
    answer = client.send(where, body, {**sample.headers, **headers})
    why = _reason(arguments, answer.refusal) if answer.refusal else None
    return _print_answer(arguments, key, answer, why)


def _refuse_options(hook: Hook, arguments: argparse.Namespace) -> None:
    reader = READERS[hook.scheme]
    missing = {"repository": not hook.repositories, "ping": reader.ping is None}
    for option, absent in missing.items():
        if absent and getattr(arguments, option):
            raise UsageError(
                f"This hook takes no --{option}: its scheme is {hook.scheme}.",
                remedy=f"leave out --{option}",
            )


def _secret(hook: Hook, reference: str | None) -> bytes:
    """Return the secret to sign with; raise `UsageError` for a public key, which can't sign."""
    if reference is not None:
        return resolved(reference).encode()
    if hook.secrets[0].startswith(PUBLIC) and hook.scheme == "standard-webhooks":
        raise UsageError(
            "The hook has the sender's public key, which can't sign.",
            remedy="name the private key, whsk_, with --secret file:PATH",
        )
    return hook.secrets[0]


def _sample(sites: Sites, hook: Hook, arguments: argparse.Namespace, key: str) -> Sample:
    """Return what the sender sends for a push to the live branch, or for a new webhook."""
    reader = READERS[hook.scheme]
    if arguments.ping and reader.ping is not None:
        return reader.ping
    repository = _repository(sites, hook, arguments) if hook.repositories else ""
    named = hook.mirrored(repository) if repository else arguments.site or hook.site
    site = named or _first(hook, sites)
    live = sites.site(site).live if site in sites else "live"
    wanted = Wanted(
        key=key,
        repository=repository,
        site=site,
        ref=arguments.ref,
        branch=hook.branch or live,
        before=secrets.token_hex(20),
        after=secrets.token_hex(20),
    )
    return reader.sample(wanted, hook)


def _repository(sites: Sites, hook: Hook, arguments: argparse.Namespace) -> str:
    """Return the named repository, or else the first one that mirrors the site, or any site."""
    if arguments.repository:
        return str(arguments.repository)
    for repository, mirrored in hook.repositories.items():
        for site in [arguments.site] if arguments.site else [site.id for site in sites]:
            name = repository.replace(PLACEHOLDER, site)
            if hook.mirrored(name) == (arguments.site or mirrored.replace(PLACEHOLDER, site)):
                return name
    raise UsageError("The hook has no repository of this site.", remedy="see the hook's setting repositories")


def _first(hook: Hook, sites: Sites) -> str:
    """Return a site that the hook may select; a site with its own entry comes before a pattern."""
    return min((site.id for site in sites if site.id in hook.sites), default=min(hook.sites, default=""))


def _reason(arguments: argparse.Namespace, refusal: str) -> str | None:
    """Return why a delivery was refused; None if the caller has no admin's token."""
    for tries_left in reversed(range(LOOKS)):
        try:
            found = connected(arguments).get(api("deliveries", refusal))
        except RefusedByListenerError:
            # Another listener may have refused it. It stores the refusal within a second.
            if tries_left:
                time.sleep(LOOK_PAUSE)
        except ListenerError:
            return None
        else:
            return str(found["reason"])
    return None


def _print_answer(arguments: argparse.Namespace, key: str, answer: Answer, why: str | None) -> int:
    text = answer.body.decode("utf-8", "backslashreplace")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if arguments.json:
        refusal = {"delivery": answer.refusal, "reason": why} if answer.refusal else None
        document({"id": key, "status": answer.status, "answer": value, "refusal": refusal})
    else:
        said = value if isinstance(value, str) else json.dumps(value)
        say(f"{answer.status} {answer.phrase}: {said}")
        # The body of a 5xx answer says what is wrong. The store may not have kept such a refusal.
        if answer.refusal and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            _print_refusal(answer.refusal, why)
        elif answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            note(_NO_REASON_KEPT)
    return DONE if 200 <= answer.status < 300 else FAILED  # noqa: PLR2004 (the successes)


_NO_REASON_KEPT = (
    "why: too many requests from here were refused, so the listener kept no reason. A valid delivery is "
    "accepted all the same. To see the reason, wait a minute and send it again"
)


def _print_refusal(refusal: str, why: str | None) -> None:
    if why is None:
        note(f"to see why, use an admin's token: sync-staging deliveries show {refusal}")
    else:
        say(f"refused: {why}")
