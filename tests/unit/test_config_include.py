"""A configuration in several files: what an included file may say, and that each error names its file."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener.config import file as reading
from listener.config.address import read_server
from listener.config.settings import load, load_hook
from listener.errors import ConfigurationError
from tests.unit.test_config import FORGE_SECRET, Folder, changed, valid


def site(path: str) -> dict[str, Any]:
    return {
        "repository": {"host": "studio", "path": path},
        "environments": {"staging": {"follow": False}},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The valid configuration, and an empty folder of further files."""
    made = Folder(tmp_path)
    (tmp_path / "sites.d").mkdir()
    made.put("listener.yaml", yaml.safe_dump(valid() | {"include": "sites.d"}))
    return made


def included(folder: Folder, name: str, tree: object) -> Path:
    return folder.put(f"sites.d/{name}", yaml.safe_dump(tree))


def refused(folder: Folder) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder.file, folder.environ)
    return caught.value.message


def test_the_files_of_the_folder_add_to_the_configuration_in_the_order_of_their_names(folder: Folder) -> None:
    included(folder, "b.yaml", {"sites": {"two": site("/srv/two")}, "tokens": []})
    hook = {"scheme": "github", "secrets": ["file:forge-secret"], "repositories": {"a/one": "one"}}
    token = {"name": "one", "sha256": "c" * 64, "role": "member", "sites": ["two"]}
    host = {"address": "eu.example.com", "user": "git"}
    included(
        folder,
        "a.yml",
        {
            "sites": {"one": site("/srv/one")},
            "hooks": {"one": hook},
            "tokens": [token],
            "hosts": {"eu": host},
        },
    )
    loaded = load(folder.file, folder.environ)
    assert [each.id for each in loaded.sites] == ["mysite", "one", "two"]
    assert loaded.hooks["one"].secrets == (FORGE_SECRET.encode(),), "a path is relative to the main file"
    assert loaded.hosts["eu"].known_hosts == loaded.hosts["studio"].known_hosts
    assert [each.name for each in loaded.tokens] == ["ci", "editors", "one"]


def test_hidden_files_other_names_and_an_empty_folder_change_nothing(folder: Folder) -> None:
    load(folder.file, folder.environ)
    for name in (".hidden.yaml", "README", "a.yaml~", "a.yaml.bak"):
        folder.put(f"sites.d/{name}", "not: [yaml")
    load(folder.file, folder.environ)


def test_a_name_in_two_files_is_an_error_that_names_both(folder: Folder) -> None:
    first = included(folder, "a.yaml", {"sites": {"one": site("/srv/one"), "mysite": site("/srv/x")}})
    second = included(folder, "b.yaml", {"sites": {"one": site("/srv/two")}})
    told = refused(folder)
    assert f"{second}: sites.one: is in {first} too; remove one of them" in told
    assert f"{first}: sites.mysite: is in {folder.file} too; remove one of them" in told


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"sites": {"one": site("srv")}}, "sites.one.repository.path: is not an absolute path"),
        ({"sites": {"One!": site("/srv")}}, 'sites."One!": is not a site id'),
        ({"sites": {"one": site("/srv/mysite/published")}}, "is the same as sites.mysite.repository; each"),
        (
            {"tokens": [{"name": "ci", "sha256": "c" * 64, "role": "admin"}]},
            "tokens.0.name: is the same as t",
        ),
        ({"tokens": [{"name": "x", "role": "admin"}]}, "tokens.0.sha256: is missing"),
        ({"hooks": {"forge2": {"scheme": "github", "secrets": ["file:absent"]}}}, "secrets.0: names "),
        (
            {"server": {"port": 1}},
            "server: can't stand in an included file, only hosts, sites,",
        ),
        ({"include": "more.d"}, "include: can't stand in an included file"),
        ({"sites": []}, "sites: is not a map; write one, or remove it"),
        ({"tokens": {}}, "tokens: is not a list; write one, or remove it"),
        ({}, "is empty"),
        ([], "isn't a map of settings"),
    ],
)
def test_an_error_names_the_file_and_the_place_in_it(folder: Folder, tree: object, told: str) -> None:
    file = included(folder, "a.yaml", tree if tree != {} else None)
    if tree == {}:
        file.write_text("# nothing\n")
    line = next(line for line in refused(folder).splitlines() if told in line)
    assert line.strip().startswith(str(file))


def test_an_included_file_without_settings_is_told_what_may_be_in_it(folder: Folder) -> None:
    included(folder, "a.yaml", None).write_text("# nothing\n")
    with pytest.raises(ConfigurationError, match=r"a\.yaml is empty") as refusal:
        folder.load(valid() | {"include": "sites.d"})
    assert refusal.value.remedy.startswith("write hosts, sites, hooks, tokens into it, or move it out")


def test_a_place_in_another_file_is_named_with_that_file(folder: Folder) -> None:
    first = included(folder, "a.yaml", {"sites": {"one": site("/srv/one")}})
    second = included(folder, "b.yaml", {"sites": {"two": site("/srv/one")}})
    told = f"{second}: sites.two.repository: is the same as {first}: sites.one.repository; each site needs"
    assert told in refused(folder)


def test_what_is_wrong_in_several_files_is_told_at_once(folder: Folder) -> None:
    folder.put("listener.yaml", yaml.safe_dump(changed("server/port", "x") | {"include": "sites.d"}))
    included(folder, "a.yaml", {"sites": {"one": site("srv")}})
    included(folder, "b.yaml", {"sites": {"two": site("/srv/two") | {"live": "a..b"}}})
    assert refused(folder).splitlines()[0] == f"{folder.file}: 3 problems"


def test_yaml_faults_have_the_file_and_the_line(folder: Folder) -> None:
    file = folder.put("sites.d/a.yaml", "sites:\n  one: {}\n  one: {}\n")
    assert refused(folder) == f"{file}: line 3, column 3: the key one appears twice in its map."


def test_the_folder_may_be_a_reference_and_must_be_a_folder(folder: Folder) -> None:
    included(folder, "a.yaml", {"sites": {"one": site("/srv/one")}})
    for written in (str(folder.path / "sites.d"), "env:SITES", "file:sites.d"):
        folder.environ["SITES"] = "sites.d"
        assert "one" in folder.load(valid() | {"include": written}).sites
    assert "can't be read: No such file or directory" in folder.refused(valid() | {"include": "absent.d"})
    assert "can't be read: Not a directory" in folder.refused(valid() | {"include": "listener.yaml"})
    assert "include: names an environment variable" in folder.refused(valid() | {"include": "env:ABSENT"})
    assert "include: is a number, not text" in folder.refused(valid() | {"include": 7})


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_who_could_write_to_an_included_file_could_configure_the_listener(folder: Folder, mode: int) -> None:
    file = included(folder, "a.yaml", {"sites": {"one": site("/srv/one")}})
    file.chmod(mode)
    assert f"other users can write to {file}, which is part of this configuration" in refused(folder)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_who_could_add_a_file_could_configure_the_listener(folder: Folder, mode: int) -> None:
    (folder.path / "sites.d").chmod(mode)
    told = (
        f"include: other users can write to {folder.path / 'sites.d'}, which lets them configure the listener"
    )
    assert told in refused(folder)


def test_the_folder_of_a_link_s_target_counts_too(folder: Folder) -> None:
    elsewhere = folder.path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    (elsewhere / "a.yaml").write_text(yaml.safe_dump({"sites": {"one": site("/srv/one")}}))
    (folder.path / "sites.d" / "a.yaml").symlink_to(elsewhere / "a.yaml")
    assert f"other users can write to {elsewhere}, which lets them replace its files" in refused(folder)
    elsewhere.chmod(0o755)
    assert "one" in load(folder.file, folder.environ).sites


def test_a_secret_in_clear_in_an_included_file_that_every_user_can_read_is_refused(folder: Folder) -> None:
    hook = {"scheme": "github", "secrets": [FORGE_SECRET], "repositories": {"a/x": "mysite"}}
    file = included(folder, "a.yaml", {"hooks": {"own": hook}})
    load(folder.file, folder.environ)
    file.chmod(0o644)
    told = refused(folder)
    assert f"{file}: hooks.own.secrets.0: the secret stands in clear in a file that every user" in told
    assert f"run chmod 600 {file}" in told
    assert FORGE_SECRET not in told


def test_what_is_not_a_file_is_not_waited_for(folder: Folder) -> None:
    os.mkfifo(folder.path / "sites.d" / "a.yaml")
    assert f"{folder.path / 'sites.d' / 'a.yaml'} is not a file" in refused(folder)


def test_all_files_together_are_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST", folder.file.stat().st_size + 10_000)
    for name in ("a", "b", "c"):
        folder.put(f"sites.d/{name}.yaml", f"sites: {{}}\n{'#' * 4_000}\n")
    assert "c.yaml: the configuration is larger than" in refused(folder)
    monkeypatch.setattr(reading, "MOST_FILES", 2)
    assert "has more than 2 files" in refused(folder)


def test_a_hook_in_an_included_file_can_be_tried_out(folder: Folder) -> None:
    hook = {"scheme": "github", "secrets": ["file:forge-secret"], "repositories": {"a/x": "one"}}
    included(folder, "a.yaml", {"hooks": {"own": hook}, "sites": {"one": site("/srv/one")}})
    own, sites = load_hook(folder.file, "own", signing=True)
    assert own.secrets == (FORGE_SECRET.encode(),)
    assert "one" in sites


def test_the_listener_s_address_is_known_without_the_included_files(folder: Folder) -> None:
    folder.put("sites.d/a.yaml", "not: [yaml")
    assert read_server(folder.file, folder.environ).port == 8787


def test_a_link_to_nowhere_is_an_error_that_names_it(folder: Folder) -> None:
    link = folder.path / "sites.d" / "a.yaml"
    link.symlink_to(folder.path / "absent.yaml")
    assert f"{link} does not exist" in refused(folder)


def test_a_name_that_is_not_utf_8_is_told_on_one_line(folder: Folder) -> None:
    name = os.fsencode(folder.path / "sites.d") + b"/a\xff\n.yaml"
    with open(name, "w") as file:  # noqa: PTH123 (the name is bytes)
        file.write("sites: 1\n")
    told = refused(folder)
    assert r"a\udcff\n.yaml" in told
    told.encode()
