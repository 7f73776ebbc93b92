"""How a configuration file is read, before anything is known of its settings."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.config.file import read
from listener.errors import ConfigurationError

BROKEN_YAML = [
    ("", "is empty"),
    ("# nothing\n", "is empty"),
    ("- a\n", "isn't a map of settings"),
    ("a: 1\nb: [1,\n", "line 3, column 1: "),
    ("a: {b: 1\nc: 2}\n", "line 2, column 2: did not find expected ',' or '}'"),
    ("server: {port: 1, port: 2}\n", "line 1, column 19: the key port appears twice in its map"),
    ("hooks: !secret x\n", "line 1, column 8: tags (!name) are not supported"),
    ("a: !!python/object:os.system x\n", "tags (!name) are not supported"),
    ("a: &x 1\nb: *x\n", "anchors (&name) and aliases (*name) are not supported"),
    ("? [a]\n: 1\n", "a map or list can't be a key"),
    ("[" * 100_000, "line 1, column 21: more than 20 levels deep"),
    ("{a: " * 100_000, "more than 20 levels deep"),
    ("- " * 100_000, "more than 20 levels deep"),
    ('a: "\\uD800"\n', "line 1, column 7: found invalid Unicode character escape code"),
    ('a: "\\U00110000"\n', "found invalid Unicode character escape code"),
    ("a: 1\n---\nb: 2\n", "line 2, column 1: another document begins here"),
    (b"a: \xff\n", "the byte at offset 3 is not UTF-8"),
    ("a: 1\nü: \x07\n", "line 2, column 4: the character is not allowed"),
    ("#" * (1 << 24) + "#", "is larger than 16 MiB"),
    ("a: [" + "1," * 1_000_000, "more than 1,000,000 values"),
]


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "listener.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refused(file: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as error:
        read(file)
    return error.value


@pytest.mark.parametrize(("text", "told"), BROKEN_YAML, ids=[told[:60] for _, told in BROKEN_YAML])
def test_what_is_no_yaml_for_a_configuration_is_told_with_its_line(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    file = written(tmp_path, text)
    error = refused(file)
    assert told in error.message
    assert error.message.startswith(str(file))
    assert error.remedy


def test_numbers_truth_and_nothing_are_read_as_such(tmp_path: Path) -> None:
    text = "{a: 1, b: -2, c: 0.5, d: true, e: False, f: null, g: ~, h: , i: [1, x]}"
    values = {
        "a": 1,
        "b": -2,
        "c": 0.5,
        "d": True,
        "e": False,
        "f": None,
        "g": None,
        "h": None,
        "i": [1, "x"],
    }
    assert read(written(tmp_path, text)) == values


@pytest.mark.parametrize(
    "text", ["no", "on", "22:30", "0755", "1e3", "1_000", "0x1f", "=", "<<", "2030-01-31T00:00:00Z", "1" * 64]
)
def test_text_that_older_yaml_takes_for_something_else_stays_text(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, f"{text}: {text}")) == {text: text}


def test_a_key_is_text_and_so_is_what_stands_in_quotes(tmp_path: Path) -> None:
    assert read(written(tmp_path, "1: '1'\ntrue: \"true\"\n")) == {"1": "1", "true": "true"}


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    assert read(written(tmp_path, b"\xef\xbb\xbfa: 1\n")) == {"a": 1}


def test_a_file_that_is_not_there_is_told_with_a_remedy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, told in (
        (tmp_path / "absent.yaml", "does not exist"),
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
    ):
        error = refused(path)
        assert told in error.message
        assert "--config" in error.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_can_t_be_read_is_told_with_a_remedy(tmp_path: Path) -> None:
    file = written(tmp_path, "a: 1")
    file.chmod(0)
    error = refused(file)
    assert "can't be read" in error.message
    assert "let the user that the listener runs as read" in error.remedy


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(
            [
                "MARKER",
                "MARKER",
                "'",
                '"',
                "{",
                "}",
                "[",
                "]",
                "&",
                "*",
                "!",
                "|",
                ">",
                "%",
                "@",
                "`",
                "\n",
                "\t",
                " ",
            ]
        ),
        max_size=8,
    )
)
def test_no_message_repeats_a_value(tmp_path_factory: pytest.TempPathFactory, text: list[str]) -> None:
    """Nothing here has a colon, so that nothing but the first word is a key."""
    file = written(tmp_path_factory.mktemp("broken"), "secrets: " + "".join(text))
    try:
        tree = read(file)
    except ConfigurationError as error:
        told = f"{error}{error.remedy}{error.__context__!r}"
    else:
        told = ""
        assert list(tree) == ["secrets"]
    assert "MARKER" not in told
