"""The command line, as far as it goes without a listener."""

import argparse
import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import yaml

from listener import __version__, cli
from listener.access import Role, Token, find_token
from listener.cli import address, local, wording
from listener.cli.failures import (
    CredentialRefusedError,
    ListenerUnreachableError,
    RefusedByListenerError,
    RunFailedError,
    UsageError,
    exit_status,
)
from listener.cli.parser import Command, build
from listener.errors import ConfigurationError, ListenerError


def commands(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, the groups included."""
    assert isinstance(parser, Command)
    parser.describe()
    yield " ".join(words), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands(below, *words, name)


COMMANDS = dict(commands(build()))


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a command line."""
    try:
        status: Any = cli.run(words)
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()


def test_the_commands_are_those_of_the_contract() -> None:
    assert set(COMMANDS) == {
        "",
        "serve",
        "check-config",
        "doctor",
        "sync",
        "status",
        "hold",
        "release",
        "rollback",
        "tail",
        "runs",
        "runs list",
        "runs show",
        "runs log",
        "runs retry",
        "runs cancel",
        "deliveries",
        "deliveries list",
        "deliveries show",
        "deliveries redeliver",
        "store",
        "store backup",
        "store copy",
        "store restore",
        "store check",
        "store prune",
        "host",
        "host script",
        "host key",
        "token",
        "token new",
        "token list",
        "hook",
        "hook send",
        "hook list",
        "demo",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example_and_its_exit_status(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = ran(capsys, *command.split(), "--help")
    assert (status, err) == (0, "")
    assert f"Example:\n  sync-staging {command.partition(' ')[0]}" in out
    assert "Exit status:" in out


@pytest.mark.parametrize("command", [name for name, parser in COMMANDS.items() if parser._defaults])
def test_every_command_tells_what_each_exit_status_means(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = ran(capsys, *command.split(), "--help")
    meanings = out.partition("Exit status:\n")[2].splitlines()
    assert [line.split(maxsplit=1)[0] for line in meanings] == ["0", "1", "2"]


@pytest.mark.parametrize("command", [name for name, parser in COMMANDS.items() if parser._defaults])
def test_every_command_is_carried_out_by_a_function_that_there_is(command: str) -> None:
    module, _, name = COMMANDS[command]._defaults["handler"].partition(":")
    assert callable(getattr(import_module(f"listener.{module}"), name))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "1e999", "\0"])
def test_a_value_that_is_refused_is_refused_in_words(command: str, text: str) -> None:
    """Of any other error than this one, argparse would print the name of a function."""
    for action in COMMANDS[command]._actions:
        if callable(action.type):
            with contextlib.suppress(argparse.ArgumentTypeError):
                action.type(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_a_token_on_its_command_line(command: str) -> None:
    options = {option for action in COMMANDS[command]._actions for option in action.option_strings}
    assert "--token" not in options
    assert not COMMANDS[command].allow_abbrev


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["deploy"],
        ["runs"],
        ["sync", "mysite"],
        ["hold", "mysite", "staging"],
        ["runs", "list", "--state", "lost"],
        ["runs", "list", "--limit", "0"],
        ["runs", "list", "--limit", "many"],
        ["sync", "mysite", "staging", "--local", "--no-wait"],
        ["hook", "send", "forge", "--id", "one\r\nX-Header: two"],
        ["token", "new", "ci"],
        ["token", "new", "ci", "--admin", "--site", "mysite"],
        ["token", "new", "two words", "--admin"],
        ["token", "new", "ci", "--site", "../etc"],
    ],
)
def test_a_wrong_command_line_is_refused_with_2_and_its_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = ran(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith("usage: sync-staging")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["stauts"], "COMMAND: unknown: 'stauts'; did you mean status? Known: serve, "),
        (["runs", "lst"], "COMMAND: unknown: 'lst'; did you mean list? Known: list, "),
        (["runs", "list", "--state", "runing"], "--state: unknown: 'runing'; did you mean running? Known: "),
        (["deploy", "now"], "COMMAND: unknown: 'deploy'; Known: serve, "),
    ],
)
def test_a_misspelt_word_is_answered_with_what_was_probably_meant(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = ran(capsys, *words)
    assert (status, out) == (2, "")
    assert hint in err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "--version") == (0, f"sync-staging {__version__}\n", "")


# Tokens.


def test_a_new_token_is_admitted_by_the_line_that_is_printed_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = ran(capsys, "token", "new", "ci", "--admin")
    text, line = out.splitlines()
    [entry] = yaml.safe_load(line)
    assert status == 0
    assert text.startswith("sst_")
    assert entry == {"name": "ci", "sha256": hashlib.sha256(text.encode()).hexdigest(), "role": "admin"}
    admitted = Token(entry["name"], entry["sha256"], Role(entry["role"]))
    assert find_token(text.encode(), [admitted]) is admitted


def test_a_members_token_names_its_sites_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys, "token", "new", "1", "--site", "mysite", "other", "--site", "mysite")
    [entry] = yaml.safe_load(out.splitlines()[1])
    assert (entry["name"], entry["role"], entry["sites"]) == ("1", "member", ["mysite", "other"])


def test_a_new_token_has_256_random_bits(capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        json.loads(ran(capsys, "token", "new", "ci", "--admin", "--json")[1])["token"] for _ in range(20)
    }
    assert len(texts) == 20
    assert {len(text) for text in texts} == {len("sst_") + 43}


# The process's log of `sync --local`.


@pytest.fixture
def _own_log() -> Iterator[None]:
    """A test may configure the log; the next test finds it as before."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_own_log")
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_a_run_is_printed_once_and_every_other_line_is_logged(
    form: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SimpleNamespace(log=SimpleNamespace(format=form), secrets=frozenset())
    monkeypatch.setattr(local, "load", lambda _path: settings)
    local.settings_of(asked())
    log = structlog.get_logger()
    log.warning("retry", run="1", site="mysite", environment="staging", host="studio")
    log.warning("connection lost", host="studio")
    log.info("connected", host="studio")
    (line,) = capsys.readouterr().err.splitlines()
    assert "connection lost" in line


# The listener's address, and the token to show it.


def asked(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"url": None, "config": None, "token_file": None, "ca": None, **given})


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SYNC_STAGING_URL", "SYNC_STAGING_TOKEN", "SYNC_STAGING_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(address, "DEFAULT_PATH", tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("{port: 9000}", "http://127.0.0.1:9000"),
        ("{host: 0.0.0.0, port: 9000}", "http://127.0.0.1:9000"),
        ("{host: '::', port: 9000}", "http://[::1]:9000"),
        ("{host: listener.internal}", "http://listener.internal:8787"),
        ("{port: 'env:LISTENER_PORT'}", "http://127.0.0.1:9001"),
    ],
)
def test_the_address_is_read_from_the_section_server_alone(
    server: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTENER_PORT", "9001")
    file = tmp_path / "listener.yaml"
    file.write_text(f"server: {server}\nhooks: {{forge: {{secrets: ['file:/not/for/everybody']}}}}\n")
    assert address.listener(asked(config=file)).url == url


def test_without_a_configuration_the_default_address_is_asked() -> None:
    assert address.listener(asked()).url == "http://127.0.0.1:8787"


def test_a_configuration_that_was_named_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        address.listener(asked(config=tmp_path / "missing.yaml"))


def test_the_option_url_beats_the_variable_and_that_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_STAGING_CONFIG", str(tmp_path / "missing.yaml"))
    monkeypatch.setenv("SYNC_STAGING_URL", "https://variable.example.com/base/")
    assert address.listener(asked()).url == "https://variable.example.com/base"
    assert address.listener(asked(url="http://option.example.com")).url == "http://option.example.com"


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8787", "ftp://host", "http://", "http://user:word@host", "http://host:port", "http://h?q"],
)
def test_an_address_that_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a plain http"):
        address.listener(asked(url=url))


def test_a_free_port_can_not_be_guessed(tmp_path: Path) -> None:
    file = tmp_path / "listener.yaml"
    file.write_text("server: {port: 0}\n")
    with pytest.raises(UsageError, match="free port"):
        address.listener(asked(config=file))


def test_the_token_comes_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("sst_from_the_file\n")
    monkeypatch.setenv("SYNC_STAGING_TOKEN", "sst_from_the_variable")
    assert address.token(asked()) == "sst_from_the_variable"
    assert address.token(asked(token_file=file)) == "sst_from_the_file"


@pytest.mark.parametrize("text", ["", " \n", "two words", "one\r\nX-Header: two", "schlüssel"])
def test_what_is_no_token_is_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        address.token(asked(token_file=file))
    assert not text.strip() or text.strip() not in refused.value.message
    assert refused.value.remedy


def test_a_missing_token_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing can't be read: No such file"):
        address.token(asked(token_file=tmp_path / "missing"))


# What is printed.


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 2),
        (ListenerUnreachableError("x"), 2),
        (CredentialRefusedError("x"), 2),
        (RefusedByListenerError("x"), 1),
        (RunFailedError("x"), 1),
        (ConfigurationError("x"), 1),
    ],
)
def test_an_error_ends_with_2_only_where_nothing_could_be_asked(error: ListenerError, status: int) -> None:
    assert exit_status(error) == status


def test_a_problem_document_is_made_safe_for_the_terminal() -> None:
    error = RefusedByListenerError.of("409 Conflict", {"detail": "no\x1b[2J\nway", "remedy": "go\u202eback"})
    assert error.message == "no\\x1b[2J\\nway"
    assert error.remedy == "go\\u202eback"


def test_an_answer_without_detail_is_told_by_its_status() -> None:
    assert (
        RefusedByListenerError.of("502 Bad Gateway", {}).message == "The listener answered 502 Bad Gateway."
    )


def test_a_log_line_shows_time_event_and_facts() -> None:
    line = {
        "at": "2026-03-01T12:34:56.789+00:00",
        "level": "warning",
        "event": "plan",
        "run": "1",
        "site": "mysite",
        "environment": "staging",
        "host": "studio",
        "plan": "forward-commit",
        "new": "0123456789abcdef0123456789abcdef01234567",
        "reason": "two words",
        "removed_count": 2,
        "removed": ["a", "b"],
        "warnings": [],
        "detached": True,
        "durations": {"observe": 0.5},
    }
    assert wording.log_line(json.dumps(line)) == (
        "12:34:56.789 warning: plan plan=forward-commit new=0123456789 "
        'reason="two words" removed_count=2 detached=true durations=observe:0.5'
    )


LOOK = {
    "plan": "forward-commit",
    "equal": False,
    "reason": "",
    "remedy": "",
    "warnings": [],
    "live": "a" * 40,
    "branch": "b" * 40,
    "ahead": 1,
    "behind": 2,
    "added_count": 0,
    "added": [],
    "changed_count": 1,
    "changed": ["changed"],
    "removed_count": 1500,
    "removed": [f"path-{n}" for n in range(1000)],
}


def test_a_plan_lists_some_of_the_removed_paths_and_counts_the_rest() -> None:
    lines = list(wording.plan("mysite/staging", LOOK))
    assert lines[0] == "mysite/staging would get a forward commit with live's content"
    assert lines[1] == "  branch bbbbbbbbbb, live aaaaaaaaaa"
    assert lines[2:5] == [
        "  1 commit ahead of live, 2 behind",
        "  would add 0 paths",
        "  would change 1 path:",
    ]
    assert lines[6:8] == ["  would remove 1500 paths:", "    path-0"]
    assert lines[-2:] == ["    path-19", "    … and 1480 more"]


def test_a_plan_that_moves_nothing_removes_nothing() -> None:
    lines = list(wording.plan("mysite/staging", {**LOOK, "plan": "up-to-date", "equal": True}))
    assert lines == ["mysite/staging is equal to live", "  branch bbbbbbbbbb, live aaaaaaaaaa"]


@pytest.mark.parametrize(
    ("state", "outcome", "line"),
    [
        ("queued", None, "mysite/staging: queued, run 7"),
        ("failed", {"error": "diverged"}, "mysite/staging: failed (diverged)"),
        (
            "succeeded",
            {"plan": "create", "old": "", "new": "c" * 40, "removed_count": 0},
            "mysite/staging: create, - -> cccccccccc, 0 paths removed",
        ),
        (
            "succeeded",
            {"plan": "reset", "old": "b" * 40, "new": "c" * 40, "removed_count": 1},
            "mysite/staging: reset, bbbbbbbbbb -> cccccccccc, 1 path removed",
        ),
        ("succeeded", {"plan": "up-to-date", "new": "c" * 40}, "mysite/staging: up-to-date at cccccccccc"),
    ],
)
def test_the_outcome_of_a_run_is_one_line(state: str, outcome: dict[str, Any] | None, line: str) -> None:
    run = {"id": "7", "site": "mysite", "environment": "staging", "state": state, "outcome": outcome}
    assert wording.outcome(run) == line


def test_a_wrong_configuration_is_told_a_line_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "listener.yaml"
    file.write_text("sits: {}\nhosts: {}\n")
    status, out, err = ran(capsys, "check-config", "--config", str(file))
    assert (status, out) == (1, "")
    assert f"error: {file}: " in err
    assert "sits: is an unknown setting; did you mean sites?" in err
    assert err.splitlines()[-1].startswith("remedy: correct these settings")
