"""`hook send`: a signed test delivery to the running listener, as the hook's sender would make it."""

import argparse
import json
import re
import secrets
import time
import uuid
from typing import Any

from listener import config, signatures
from listener.cli import address
from listener.cli.client import opened
from listener.cli.failures import DONE, FAILED, UsageError
from listener.cli.options import Commands, add_command, add_group, add_json, add_url
from listener.cli.printing import document, say
from listener.config import Settings
from listener.deliveries import Hook
from listener.errors import ConfigurationError

_OPTIONS = {"github": {"site", "repository", "ref", "ping"}, "standard-webhooks": {"site", "ref"}}
"""What of a delivery can be chosen, by scheme."""

_Sample = tuple[str, dict[str, Any]]
"""The event that a delivery tells of, and its payload."""


def add(commands: Commands) -> None:
    """Add the command."""
    group = add_group(
        commands, "hook", summary="try a hook out", example="sync-staging hook send forge --ping"
    )
    parser = add_command(
        group,
        "send",
        send,
        summary="send a signed test delivery to a hook of the running listener; it may start a sync",
        example="sync-staging hook send forge --repository acme/mysite",
        done="the listener took the delivery",
        failed="it refused the delivery, or the configuration has no such hook",
    )
    parser.add_argument("hook", metavar="HOOK", help="the hook's name in the configuration")
    parser.add_argument("--site", metavar="SITE", help="the site that was published")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="the repository that was pushed to")
    parser.add_argument(
        "--ref", metavar="REF", help="the full ref that was pushed (default: the site's live)"
    )
    parser.add_argument("--id", metavar="ID", type=_id, help="the delivery's id (default: a new one)")
    parser.add_argument("--ping", action="store_true", help="send the ping of a new webhook instead")
    add_url(parser)
    add_json(parser)


async def send(arguments: argparse.Namespace) -> int:
    """Send the delivery and tell what the listener answers."""
    settings = config.load(address.config_path(arguments))
    hook = _hook(settings, arguments.hook)
    _refuse_options(hook, arguments)
    event, payload = (_push if hook.scheme == "github" else _publish)(settings, hook, arguments)
    body = json.dumps(payload).encode()
    key = arguments.id or str(uuid.uuid4())
    headers = signatures.sign(hook.scheme, hook.secrets[0], key, event, body, time.time())
    async with opened(address.url(arguments), {}) as client:
        status, phrase, answer = await client.send(f"/hooks/{hook.name}", body, headers)
    return _tell(arguments, key, status, phrase, answer)


def _hook(settings: Settings, name: str) -> Hook:
    if name not in settings.hooks:
        known = ", ".join(settings.hooks) or "none"
        raise ConfigurationError("There is no such hook.", remedy=f"name a configured one: {known}")
    return settings.hooks[name]


def _refuse_options(hook: Hook, arguments: argparse.Namespace) -> None:
    for option in ("site", "repository", "ref", "ping"):
        if getattr(arguments, option) and option not in _OPTIONS[hook.scheme]:
            raise UsageError(
                f"A delivery by the scheme {hook.scheme} has no {option}.", remedy=f"leave out --{option}"
            )


def _push(settings: Settings, hook: Hook, arguments: argparse.Namespace) -> _Sample:
    """Return what GitHub sends for a push, or for a new webhook, as far as it is of use.

    https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
    """
    repository = arguments.repository or _repository_of(hook, arguments.site)
    if arguments.ping:
        return "ping", {"zen": "Keep it logically awesome.", "repository": {"full_name": repository}}
    site = hook.repositories.get(repository)
    live = settings.sites.site(site).live if site else "live"
    return "push", {
        "ref": arguments.ref or f"refs/heads/{live}",
        "before": secrets.token_hex(20),
        "after": secrets.token_hex(20),
        "created": False,
        "deleted": False,
        "repository": {"full_name": repository},
    }


def _repository_of(hook: Hook, site: str | None) -> str:
    """Return the first repository that mirrors the site, or any site."""
    for repository, mirrored in hook.repositories.items():
        if site in {None, mirrored}:
            return repository
    raise UsageError("The hook has no repository of that site.", remedy="see the hook's setting repositories")


def _publish(settings: Settings, hook: Hook, arguments: argparse.Namespace) -> _Sample:
    """Return what tells of a publish of one site."""
    site = arguments.site or hook.site or min(hook.sites)
    if arguments.ref:
        return "publish", {"site_id": site, "ref": arguments.ref}
    live = settings.sites.site(site).live if site in settings.sites else "live"
    return "publish", {"site_id": site, "environment": live}


def _id(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,256}", text):
        raise argparse.ArgumentTypeError("is not 1 to 256 printable ASCII characters without a space")
    return text


def _tell(arguments: argparse.Namespace, key: str, status: int, phrase: str, answer: bytes) -> int:
    text = answer.decode("utf-8", "backslashreplace")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if arguments.json:
        document({"id": key, "status": status, "answer": value})
    else:
        say(f"{status} {phrase}: {value if isinstance(value, str) else json.dumps(value)}")
    return DONE if 200 <= status < 300 else FAILED  # noqa: PLR2004 (the successes)
