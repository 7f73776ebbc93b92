"""`hook`: a signed test delivery to the running listener, as its sender would make it; secrets in use."""

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
from listener.cli.printing import document, say, tell
from listener.config.references import resolved
from listener.config.settings import load_hook
from listener.deliveries import READERS, Hook, Sample, Wanted
from listener.errors import ListenerError
from listener.signatures.standard_webhooks import PUBLIC
from listener.sites import PLACEHOLDER, Sites

LOOKS = 3
LOOK_PAUSE = 1.0
"""Seconds from one to the next."""


def send(arguments: argparse.Namespace) -> int:
    """Send the delivery and tell what the listener answers."""
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
    return _tell(arguments, key, answer, why)


def _refuse_options(hook: Hook, arguments: argparse.Namespace) -> None:
    reader = READERS[hook.scheme]
    missing = {"repository": not hook.repositories, "ping": reader.ping is None}
    for option, absent in missing.items():
        if absent and getattr(arguments, option):
            raise UsageError(
                f"A delivery to this hook, by the scheme {hook.scheme}, has no {option}.",
                remedy=f"leave out --{option}",
            )


def _secret(hook: Hook, reference: str | None) -> bytes:
    """Return what to sign with: a public key can't."""
    if reference is not None:
        return resolved(reference).encode()
    if hook.secrets[0].startswith(PUBLIC) and hook.scheme == "standard-webhooks":
        raise UsageError(
            "The hook has the sender's public key, which signs nothing.",
            remedy="name the private one, whsk_, with --secret file:PATH",
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
    raise UsageError("The hook has no repository of that site.", remedy="see the hook's setting repositories")


def _first(hook: Hook, sites: Sites) -> str:
    """Return a site that the hook may select, rather one with an entry of its own than a pattern."""
    return min((site.id for site in sites if site.id in hook.sites), default=min(hook.sites, default=""))


def _reason(arguments: argparse.Namespace, refusal: str) -> str | None:
    """Return why a delivery was refused, if the caller has an admin's token to ask with."""
    for tries_left in reversed(range(LOOKS)):
        try:
            found = connected(arguments).get(api("deliveries", refusal))
        except RefusedByListenerError:
            # Another listener may have refused it, and writes that down within a second.
            if tries_left:
                time.sleep(LOOK_PAUSE)
        except ListenerError:
            return None
        else:
            return str(found["reason"])
    return None


def _tell(arguments: argparse.Namespace, key: str, answer: Answer, why: str | None) -> int:
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
        # An answer from 500 on says itself what is wrong, and the store may have kept nothing of it.
        if answer.refusal and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            _tell_refusal(answer.refusal, why)
        elif answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            tell(_TOO_OFTEN)
    return DONE if 200 <= answer.status < 300 else FAILED  # noqa: PLR2004 (the successes)


_TOO_OFTEN = (
    "why: too many requests from here were refused, so no reason is kept of this one. A good delivery is "
    "taken all the same; wait a minute, and send it again to be told what is wrong with it"
)


def _tell_refusal(refusal: str, why: str | None) -> None:
    if why is None:
        tell(f"why: sync-staging deliveries show {refusal}, with an admin's token")
    else:
        say(f"refused: {why}")
