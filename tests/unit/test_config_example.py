"""The example and the documentation of the configuration, and that no message shows a secret."""

import copy
import os
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.config.describe import describe, to_dict
from listener.config.document import Document
from listener.config.hooks import SELECTORS
from listener.config.sections import Section
from listener.config.settings import load
from listener.errors import ConfigurationError

FOLDER = Path(__file__).parents[2] / "config"
EXAMPLE = (FOLDER / "listener.example.yaml").read_text()
README = (FOLDER / "README.md").read_text()
MARKER = "Zx9Marker4Secret"


def prepared(folder: Path, text: str) -> tuple[Path, dict[str, str]]:
    """Return a configuration file and an environment, with everything that the example refers to."""
    credentials = folder / "credentials"
    credentials.mkdir()
    (folder / "forge-secret").write_text(MARKER)
    (folder / "forge-secret").chmod(0o600)
    for name in ("known_hosts", "id_ed25519"):
        (folder / name).write_text("content\n")
        (folder / name).chmod(0o600)
    secret = folder / "publisher-secret"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    secret.chmod(0o600)
    file = folder / "listener.yaml"
    hashes = iter(("a" * 64, "b" * 64))
    filled = re.sub(r"<what `sync-staging token new [^`]+` printed>", lambda _: next(hashes), text)
    file.write_text(filled.replace("/etc/sync-staging/", ""))
    return file, {"CREDENTIALS_DIRECTORY": str(credentials)}


def test_the_example_is_a_valid_configuration(tmp_path: Path) -> None:
    loaded = load(*prepared(tmp_path, EXAMPLE))
    assert [environment.name for environment in loaded.sites.site("mysite").following] == ["staging"]
    assert loaded.hooks.keys() == {"forge", "publisher"}
    assert [token.name for token in loaded.tokens] == ["ci", "editors"]


def test_the_example_lets_nobody_in_until_its_tokens_are_made(tmp_path: Path) -> None:
    file, environ = prepared(tmp_path, EXAMPLE)
    file.write_text(EXAMPLE.replace("/etc/sync-staging/", ""))
    with pytest.raises(ConfigurationError, match=r"tokens\.0\.sha256"):
        load(file, environ)


def test_what_the_example_shows_commented_out_is_the_default(tmp_path: Path) -> None:
    shown = re.sub(r"^( *)# ([a-z_]+: \S+)$", r"\1\2", EXAMPLE, flags=re.MULTILINE)
    assert shown.count("#") < EXAMPLE.count("#") - 10
    (tmp_path / "short").mkdir()
    (tmp_path / "long").mkdir()
    short = to_dict(load(*prepared(tmp_path / "short", EXAMPLE)))
    long = to_dict(load(*prepared(tmp_path / "long", shown)))
    own: dict[str, Any] = {"hosts": {}, "ssh": {}}
    assert short | own == long | own
    assert short["hosts"]["studio"]["port"] == long["hosts"]["studio"]["port"]


def sections(kind: Any = Document) -> list[type[Section]]:
    """Return every map of settings that a configuration may have."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return [kind, *(s for f in kind.model_fields.values() for s in sections(f.annotation))]
    return [found for argument in get_args(kind) for found in sections(argument)]


KEYS = sorted({(section.__name__, key) for section in sections() for key in section.model_fields})


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_setting_is_documented_and_shown(section: str, key: str) -> None:
    assert f"`{key}`" in README or re.search(rf"^## {key}$", README, re.MULTILINE)
    assert re.search(rf"\b{key}:", EXAMPLE) or (section, key) == ("HookSection", "sites")


def test_the_documented_defaults_are_the_defaults(tmp_path: Path) -> None:
    for section, heading in (
        ("server", "server"),
        ("sync", "sync"),
        ("history", "history"),
        ("metrics", "metrics"),
        ("log", "log"),
    ):
        part = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        model = Document.model_fields[section].annotation
        assert isinstance(model, type)
        rows = dict(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| `([^`]+)` \|", part, re.MULTILINE))
        written = {key: yaml.safe_load(value) for key, value in rows.items()}
        assert rows.keys() == model.model_fields.keys()
        assert model.model_validate(written) == model()


def test_every_scheme_is_documented() -> None:
    assert all(f"`{scheme}`" in README for scheme in SELECTORS)


Place = tuple[str | int, ...]


def places(node: object, path: Place = ()) -> list[Place]:
    """Return every place in a tree."""
    pairs: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in pairs for place in places(value, (*path, key)))]


def put(tree: Any, path: Place, value: object) -> Any:
    """Return the tree with a value at a place."""
    if not path:
        return value
    node = tree
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return tree


TREE = yaml.safe_load(EXAMPLE.replace("2030-01-31T00:00:00Z", "'2030-01-31T00:00:00Z'"))
BREAKAGE = st.tuples(
    st.sampled_from(places(TREE)),
    st.sampled_from(
        [MARKER, [MARKER], {"x": MARKER}, f"{MARKER}\n", f"@{MARKER}:22", f"credential:../{MARKER}", 7]
    ),
)


@settings(max_examples=int(os.environ.get("SYNC_STAGING_HISTORIES", "60")), deadline=None)
@given(broken=st.lists(BREAKAGE, min_size=1, max_size=5))
def test_no_message_repeats_a_value(
    tmp_path_factory: pytest.TempPathFactory, broken: list[tuple[Place, Any]]
) -> None:
    tree = copy.deepcopy(TREE)
    for path, value in sorted(broken, key=lambda pair: -len(pair[0])):
        tree = put(tree, path, copy.deepcopy(value))
    file, environ = prepared(tmp_path_factory.mktemp("secret"), yaml.safe_dump(tree))
    told = ""
    try:
        loaded = load(file, environ)
    except ConfigurationError as error:
        told = f"{error}{error.remedy}{error.__context__!r}{error.__cause__!r}"
    else:
        # What was put at a valid place outside the hooks is no secret, and is told.
        if all(path[:1] == ("hooks",) for path, _ in broken):
            told = f"{describe(loaded)}{to_dict(loaded)}{loaded!r}"
    assert MARKER not in told
