"""What an operator may write by mistake, and what may turn up in a log."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from listener.config.describe import describe, to_dict
from listener.config.settings import load
from listener.errors import ConfigurationError
from listener.redaction import Cleaner
from tests.fuzz.target import Target, as_json

EXAMPLES = Path(__file__).parents[2] / "config"

_FOLDER = tempfile.TemporaryDirectory(prefix="sync-staging-fuzz-")
FOLDER = Path(_FOLDER.name)
for _name in ("known_hosts", "id_ed25519", "secret"):
    (FOLDER / _name).write_text("a-secret-of-the-operators\n")
    (FOLDER / _name).chmod(0o600)
(FOLDER / "sites.d").mkdir()
(FOLDER / "sites.d" / "other.yaml").write_text(
    "sites: {other: {repository: {host: studio, path: /srv/y}, environments: {qa: {follow: false}}}}\n"
)


def try_configuration(data: bytes) -> None:
    """Any file is loaded, or refused in one way, which shows no secret."""
    path = FOLDER / "listener.yaml"
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        settings = load(path, {})
    except ConfigurationError as error:
        told = f"{error.message}{error.remedy}"
    else:
        told = f"{describe(settings)}{json.dumps(to_dict(settings))}{settings!r}"
    assert "a-secret-of-the-operators" not in told
    told.encode()


def configuration_seeds() -> Iterator[bytes]:
    for path in (EXAMPLES / "listener.example.yaml", *sorted((EXAMPLES / "recipes").glob("*.yaml"))):
        yield path.read_text().replace("/etc/sync-staging/", f"{FOLDER}/").encode()
    yield f"""include: sites.d
ssh: {{known_hosts: known_hosts, identity: id_ed25519}}
hosts: {{studio: {{address: studio.example.com, user: crafter}}}}
sites: {{mysite: {{repository: {{host: studio, path: /srv/x}}, environments: {{staging: {{follow: true}}}}}}}}
hooks: {{forge: {{scheme: github, secrets: ["file:secret"], repositories: {{a/b: mysite}}}}}}
tokens: [{{name: ci, sha256: {"a" * 64}, role: admin}}]
""".encode()


SECRETS = ("hunter2-hunter2", "hunter2", "Gehäimnis 9", "two\nlines-of-it", "quoted'\"secret", "a" * 40)
CLEAN = Cleaner(SECRETS)


def try_cleaner(data: bytes) -> None:
    """No secret survives, and nothing that could move a cursor; `$0` to `$5` stand for the secrets."""
    text = data.decode("utf-8", "surrogateescape")
    for place, secret in enumerate(SECRETS):
        text = text.replace(f"${place}", secret)
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    for each in (text, {text: [text, (text,)]}, value, text.splitlines()):
        check_clean(CLEAN(each))


def check_clean(value: Any) -> None:
    match value:
        case dict():
            for key, each in value.items():
                check_clean(key)
                check_clean(each)
        case list():
            for each in value:
                check_clean(each)
        case str():
            assert value.isprintable(), "a character that moves a cursor"
            assert not any(secret in value for secret in SECRETS), "a secret"
            assert CLEAN(value) == value, "clean text is left alone"
        case _:
            assert value is None or isinstance(value, int | float)


def cleaner_seeds() -> Iterator[bytes]:
    yield b"the password is $0, and $1$1, \x1b[31mred\x1b[0m $2"
    yield b"hunter2-$0hunter2 hunt$1er2 $3$4 $5$5"
    yield as_json({"a": ["$0", {"b $1": None}], "$2": 1.5})
    yield "\u202e\u2028\x85 \udcff".encode("utf-8", "surrogateescape")


TARGETS = {
    "configuration": Target(try_configuration, configuration_seeds),
    "cleaner": Target(try_cleaner, cleaner_seeds),
}
