"""What the configuration may say of CrafterCMS Studio, and that its tokens are kept."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from listener.config.describe import describe, to_dict
from listener.config.sections import StudioSection
from listener.config.settings import load
from tests.unit.test_config import Folder, valid
from tests.unit.test_config_example import EXAMPLE, prepared

URL = "http://studio.example.com:8080/studio"
TOKEN = "eyJhbGciOi.J9/x+y==.4711"
MANAGEMENT = "defaultManagementToken"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.put("studio-token", f"{TOKEN}\n")
    made.put("credentials/studio-management", f"{MANAGEMENT}\n", 0o440)
    return made


def asking(**settings: Any) -> dict[str, Any]:
    """The valid configuration with a section `studio`; None takes a setting away."""
    studio = {"url": URL, "token": "file:studio-token", "management_token": "credential:studio-management"}
    return valid() | {"studio": {k: v for k, v in (studio | settings).items() if v is not None}}


def studio(
    url: str, token: str | None, management: str | None, timeout: float, callers: Sequence[str] = ()
) -> StudioSection:
    return StudioSection(
        url=url, token=token, management_token=management, timeout=timeout, callers=list(callers)
    )


def test_studio_is_not_asked_unless_the_section_is_there(folder: Folder) -> None:
    loaded = folder.load(valid())
    assert loaded.studio is None
    assert to_dict(loaded)["studio"] is None
    assert not any(line.startswith("studio") for line in describe(loaded))


def test_a_studio_has_its_url_its_tokens_and_a_time_limit(folder: Folder) -> None:
    assert folder.load(asking()).studio == studio(URL, TOKEN, MANAGEMENT, 5)
    assert folder.load(asking(timeout="250ms", token=None)).studio == studio(URL, None, MANAGEMENT, 0.25)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/studio",
        "https://studio.example.com/studio",
        "https://cms.example.com/authoring/studio",
        "http://[::1]:8080/studio",
    ],
)
def test_a_slash_at_the_end_of_the_url_changes_nothing(folder: Folder, url: str) -> None:
    for written in (url, f"{url}/"):
        studio = folder.load(asking(url=written)).studio
        assert studio is not None
        assert studio.url == url


REFUSED = [
    ({"url": None}, "studio.url: is missing: Studio's address"),
    ({"url": "studio.example.com/studio"}, "studio.url: is not a Studio URL; write Studio's own"),
    ({"url": "http://studio.example.com:8080"}, "studio.url: is not a Studio URL"),
    ({"url": "http://studio.example.com/studio//"}, "studio.url: is not a Studio URL"),
    ({"url": "http://studio.example.com/studio/api/2"}, "studio.url: is not a Studio URL"),
    ({"url": "http://studio.example.com:0/studio"}, "studio.url: is not a Studio URL"),
    ({"url": "http://studio.example.com:65536/studio"}, "studio.url: is not a Studio URL"),
    ({"url": "http://studio example.com/studio"}, "studio.url: is not a Studio URL"),
    ({"url": "http://studio.example.com/studio\n"}, "studio.url: is not a Studio URL"),
    ({"url": "http:///studio"}, "studio.url: is not a Studio URL"),
    ({"url": "ftp://studio.example.com/studio"}, "studio.url: is not a Studio URL"),
    (
        {"url": "http://me:pass@studio.example.com/studio"},
        "studio.url: contains a user, a query or a fragment",
    ),
    ({"url": f"{URL}?token=x"}, "studio.url: contains a user, a query or a fragment"),
    ({"url": f"{URL}#x"}, "studio.url: contains a user, a query or a fragment"),
    ({"url": 8080}, "studio.url: is a number, not text; put it in quotes"),
    (
        {"token": None, "management_token": None},
        "studio: is asked for nothing; write token, management_token or callers",
    ),
    ({"token": ""}, "studio.token: is not a token; write it on one line"),
    ({"token": "two words"}, "studio.token: is not a token"),
    ({"token": "x\r\nX-Other: y"}, "studio.token: is not a token"),
    ({"management_token": "schlüssel"}, "studio.management_token: is not a token"),
    ({"token": 7}, "studio.token: is a number, not text; put it in quotes"),
    ({"token": "file:absent"}, "studio.token: names "),
    ({"management_token": "credential:absent"}, "which is not a file; create it"),
    ({"callers": [], "token": None, "management_token": None}, "studio: is asked for nothing"),
    ({"callers": "admin"}, "studio.callers: is text, not a list"),
    (
        {"callers": ["a\nb"]},
        "studio.callers.0: is not the name of a Studio role; write one such as publisher",
    ),
    ({"timeout": 0}, "studio.timeout: must be greater than 0"),
    (
        {"tokens": "x"},
        "studio.tokens: is an unknown setting; did you mean token? Known: callers, management_token, timeout",
    ),
]


@pytest.mark.parametrize(("settings", "told"), REFUSED, ids=[f"{s!r}"[:60] for s, _ in REFUSED])
def test_what_is_wrong_is_told_with_its_place_and_what_to_write(
    folder: Folder, settings: dict[str, Any], told: str
) -> None:
    assert told in folder.refused(asking(**settings))


def test_a_section_that_is_no_map_is_told_as_such(folder: Folder) -> None:
    told = folder.refused(valid() | {"studio": URL})
    assert "studio: is text, not a map of url, token, management_token, callers, timeout" in told
    assert "studio: is empty; write a map of url and what Studio is asked for" in folder.refused(
        valid() | {"studio": None}
    )
    tree = asking()
    tree["studio"]["token"] = None
    assert "studio.token: is empty; write the token, or remove" in folder.refused(tree)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_token_that_others_may_open_is_refused(folder: Folder, mode: int) -> None:
    file = folder.path / "studio-token"
    file.chmod(mode)
    for key in ("token", "management_token"):
        told = folder.refused(asking(token=None) | asking(**{key: "file:studio-token"}))
        assert f"studio.{key}: other users can open {file}; run chmod 600 {file}" in told


def warned(folder: Folder, **settings: Any) -> list[str]:
    return [text.split(":")[0] for text in folder.load(asking(**settings)).warnings if "studio." in text]


@pytest.mark.parametrize(
    ("url", "places"),
    [
        (URL, ["studio.url"]),
        ("http://10.0.0.7/studio", ["studio.url"]),
        ("https://studio.example.com/studio", []),
        ("http://localhost:8080/studio", []),
        ("http://127.0.0.2/studio", []),
        ("http://[::1]:8080/studio", []),
    ],
)
def test_a_token_that_travels_in_clear_to_another_machine_is_a_warning(
    folder: Folder, url: str, places: list[str]
) -> None:
    assert warned(folder, url=url) == places


def test_a_token_in_clear_is_a_warning(folder: Folder) -> None:
    url = "https://studio.example.com/studio"
    assert warned(folder, url=url, token="clear", management_token=None) == ["studio.token"]
    assert warned(folder, url=url, token="clear", management_token="too") == [
        "studio.token",
        "studio.management_token",
    ]
    folder.environ["STUDIO"] = "by-reference"
    assert warned(folder, url=url, token="env:STUDIO") == []


def test_the_tokens_are_told_nowhere_and_the_log_leaves_them_out(folder: Folder) -> None:
    loaded = folder.load(asking())
    assert loaded.secrets >= {TOKEN.encode(), b"eyJhbGciOi.J9%2Fx%2By%3D%3D.4711", MANAGEMENT.encode()}
    lines, values = describe(loaded), to_dict(loaded)
    assert (
        f"studio: {URL}, asked whether it is publishing and whether it is the primary, answers within 5 s"
        in lines
    )
    assert values["studio"] == {
        "url": URL,
        "token": True,
        "management_token": True,
        "timeout": 5,
        "callers": [],
    }
    everything = f"{lines}{json.dumps(values)}{loaded!r}{loaded.studio!r}"
    assert TOKEN not in everything
    assert MANAGEMENT not in everything


def test_callers_by_studio_are_let_in_by_the_roles_that_are_named_alone(folder: Folder) -> None:
    named = folder.load(asking(token=None, management_token=None, callers=["publisher", "admin"]))
    assert named.studio == studio(URL, None, None, 5, ["publisher", "admin"])
    told = f"studio: {URL}, asked who a caller is (admin, publisher may sync), answers within 5 s"
    assert told in describe(named)
    assert to_dict(named)["studio"]["callers"] == ["publisher", "admin"]
    asked = folder.load(asking()).studio
    assert asked is not None
    assert asked.callers == []


def test_a_question_that_is_not_asked_is_not_told(folder: Folder) -> None:
    assert f"studio: {URL}, asked whether it is the primary, answers within 5 s" in describe(
        folder.load(asking(token=None))
    )
    assert f"studio: {URL}, asked whether it is publishing, answers within 5 s" in describe(
        folder.load(asking(management_token=None))
    )


@pytest.mark.parametrize("secret", ["Zx9Marker 4Secret", "http://u:Zx9Marker @x/studio"])
def test_no_message_repeats_a_value(folder: Folder, secret: str) -> None:
    for key in ("url", "token", "management_token", "timeout"):
        assert "Zx9Marker" not in folder.refused(asking(**{key: secret}))


def test_what_the_example_says_of_studio_is_valid(tmp_path: Path) -> None:
    text = re.sub(
        r"^# (studio:|  (?:url|token|management_token|callers|timeout): )", r"\1", EXAMPLE, flags=re.MULTILINE
    )
    file, environ = prepared(tmp_path, text)
    for name in ("studio-token", "studio-management"):
        (tmp_path / "credentials" / name).write_text(name)
    assert load(file, environ).studio == studio(
        URL, "studio-token", "studio-management", 5, ["admin", "publisher"]
    )
