"""The recipes: each is a valid configuration, is told of, and takes what its sender sends."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener.config.settings import Settings, load
from listener.deliveries import READERS, Delivery, Hook, Wanted, read, select
from listener.signatures import Accepted, sign, verify
from listener.sites import PLACEHOLDER

FOLDER = Path(__file__).parents[2] / "config" / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
README = (FOLDER / "README.md").read_text()

SENDERS = {
    "github",
    "gitlab",
    "gitea",
    "bitbucket",
    "azure-devops",
    "deployer-http",
    "deployer-webhook",
    "deployer-script",
}

SECRETS = {
    "azure-secret": "azure:6b1d0c2f8a4e97d35f60b1c28e7a9d44",
    "deployer-secret": "deployer:6b1d0c2f8a4e97d35f60b1c28e7a9d44",
    "deployer-signing-secret": "whsec_5WUXqVJvX2TzJfqVbQ6mC0kz8n3m1bTu",
    "gitlab-signing-token": "whsec_5WUXqVJvX2TzJfqVbQ6mC0kz8n3m1bTu",
}


def loaded(folder: Path, recipe: Path) -> Settings:
    """The recipe, merged with a minimal rest; its secrets lie in the folder."""
    text = recipe.read_text().replace("/etc/sync-staging/", "")
    fragment: dict[str, Any] = yaml.safe_load(text)
    assert fragment.keys() == {"hooks"}
    for name in re.findall(r"file:([\w-]+)", text):
        (folder / name).write_text(SECRETS.get(name, "a secret of random characters") + "\n")
        (folder / name).chmod(0o600)
    for name in ("known_hosts", "id_ed25519"):
        (folder / name).write_text("content\n")
        (folder / name).chmod(0o600)
    rest = {
        "ssh": {"known_hosts": "known_hosts", "identity": "id_ed25519"},
        "hosts": {"studio": {"address": "studio.example.com", "user": "crafter"}},
        "sites": {
            "mysite": {
                "repository": {"host": "studio", "path": "/srv/mysite/published"},
                "environments": {"staging": {"follow": True}},
            }
        },
    }
    file = folder / "listener.yaml"
    file.write_text(yaml.safe_dump({**rest, **fragment}))
    return load(file, {})


def test_there_is_a_recipe_for_each_sender_and_the_page_tells_of_it() -> None:
    assert {recipe.stem for recipe in RECIPES} == SENDERS
    for recipe in RECIPES:
        assert f"]({recipe.name})" in README


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_recipe_takes_what_its_sender_sends(tmp_path: Path, recipe: Path) -> None:
    settings = loaded(tmp_path, recipe)
    assert not [warning for warning in settings.warnings if warning.startswith("hooks")]
    for hook in settings.hooks.values():
        for index, secret in enumerate(hook.secrets):
            for repository in hook.repositories or [""]:
                delivery = made(hook, secret, repository.replace(PLACEHOLDER, "mysite"))
                verdict = verify(hook.scheme, hook.secrets, delivery.request, delivery.received_at, hook.form)
                assert verdict == Accepted(index)
                (selected,) = tuple(select(read(hook, delivery), hook, settings.sites))  # type: ignore[arg-type]
                assert (selected.site, selected.name) == ("mysite", "staging")


def made(hook: Hook, secret: bytes, repository: str) -> Delivery:
    """What the hook's sender sends for a push to live."""
    wanted = Wanted("id-1", repository, "mysite", None, "live", "1" * 40, "2" * 40)
    sample = READERS[hook.scheme].sample(wanted, hook)
    body, now = json.dumps(sample.payload).encode(), time.time()
    headers = {**sample.headers, **sign(hook.scheme, secret, "id-1", sample.event, body, now, hook.form)}
    return Delivery(hook.name, tuple((n.encode(), v.encode()) for n, v in headers.items()), body, now)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_what_is_commented_out_in_a_recipe_is_valid_too(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "shown").mkdir()
    shown = tmp_path / recipe.name
    shown.write_text(re.sub(r"^( +)# (\S+: \S+)", r"\1\2", recipe.read_text(), flags=re.MULTILINE))
    assert loaded(tmp_path / "shown", shown).hooks


def test_what_a_deployer_s_template_writes_selects_its_site(tmp_path: Path) -> None:
    (template,) = re.findall(r"^\{.*site_id.*\}$", README, re.MULTILINE)
    body = template.replace("${deployment.target.siteName?json_string}", "mysite").encode()
    settings = loaded(tmp_path, FOLDER / "deployer-webhook.yaml")
    hook = settings.hooks["deployer"]
    delivery = Delivery("deployer", ((b"Content-Type", b"application/json; charset=UTF-8"),), body, 0.0)
    assert select(read(hook, delivery), hook, settings.sites) == settings.sites.site("mysite").following
