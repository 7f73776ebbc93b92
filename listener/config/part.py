"""A part of a configuration, for who may not read all that it refers to."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from listener.config.file import read
from listener.config.hooks import broken_hook, made
from listener.config.model import HookEntry, SiteEntry
from listener.config.problems import refusal
from listener.config.references import Surroundings, resolve
from listener.config.shape import Section
from listener.config.sites import made_sites
from listener.deliveries import Hook
from listener.errors import ConfigurationError
from listener.sites import Sites


class _Part(Section):
    """One hook, and the sites that it may select."""

    hook: HookEntry
    sites: dict[str, SiteEntry]


def load_hook(
    path: str | Path, name: str, *, signing: bool, environ: Mapping[str, str] = os.environ
) -> tuple[Hook, Sites]:
    """Return a hook and the sites; raise `ConfigurationError`.

    Of what the file refers to nothing is read but the hook's first secret, and that only for `signing`; the
    hook has no other. So who tries one out need not be able to read the listener's key and its other secrets.
    """
    path = Path(path)
    tree = read(path)
    entry = _entry(tree, name)
    written = entry.get("secrets")
    if isinstance(written, list):
        entry = {**entry, "secrets": written[:1] if signing else []}
    resolution = resolve(
        {"sites": tree.get("sites"), "hooks": {name: entry}}, Surroundings(path.absolute().parent, environ)
    )
    entry = resolution.tree["hooks"][name]
    if resolution.problems:
        text = "; ".join(map(str, resolution.problems))
        raise ConfigurationError(
            f"{path}: {text}.",
            remedy="be somebody who can read it, or name the secret with --secret file:PATH",
        )
    if problems := list(broken_hook(("hooks", name), entry, resolution)):
        raise refusal(path, problems)
    try:
        # What is not to be signed with stays as it is written: that there is a secret is a rule of the shape.
        part = _Part.model_validate(
            {"hook": entry if signing else {**entry, "secrets": written}, "sites": resolution.tree["sites"]}
        )
    except ValidationError:
        raise ConfigurationError(
            f"{path}: the hook {name}, or the sites, can't be used.",
            remedy="sync-staging check-config tells why",
        ) from None
    hook = made(name, part.hook, resolution)
    return (hook if signing else replace(hook, secrets=())), made_sites(part.sites)


def _entry(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    hooks = tree.get("hooks")
    entry = hooks.get(name) if isinstance(hooks, dict) else None
    if not isinstance(entry, dict):
        known = ", ".join(map(str, hooks)) if isinstance(hooks, dict) and hooks else "none"
        raise ConfigurationError("There is no such hook.", remedy=f"name a configured one: {known}")
    return entry
