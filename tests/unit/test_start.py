"""What a command imports. Importing is most of what a short command costs."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from listener.cli.parser import COMMANDS

LOADED = """
import sys
before = set(sys.modules)
from listener import cli
status = cli.run(sys.argv[1:])
names = sorted(set(sys.modules) - before)
import json
sys.stderr.write("\\n" + json.dumps([status, names]))
"""

BARE = {"cli", "errors", "redaction", "vocabulary", "web", ""}
"""The rooms that describe the command line. Of `web` it is `protocol` alone."""
PROTOCOL = {"listener.web", "listener.web.protocol"}
SLOW = {"asyncio", "dataclasses", "email", "http", "pathlib", "shutil", "socket", "ssl", "urllib"}
"""Parts of the standard library that take long to import."""


def imported(*words: str, **environ: str) -> tuple[int, set[str]]:
    """The exit status of a command, and the modules that it has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, set(modules)


def foreign(modules: set[str]) -> set[str]:
    """The packages among them that are neither ours nor the standard library's."""
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"listener"}
    return {name for name in packages if not name.startswith(("_", "cython"))}  # parts of PyYAML's extension


def rooms(modules: set[str]) -> set[str]:
    """Our own rooms among them."""
    return {f"{name}..".split(".")[1] for name in modules if name.partition(".")[0] == "listener"}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--version"], 0),
        (["--help"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["runs", "list", "--limit", "0"], 2),
        *(([command, "--help"], 0) for command in COMMANDS),
        (["runs", "list", "--help"], 0),
        (["hook", "send", "--help"], 0),
        (["token", "new", "--help"], 0),
    ],
)
def test_help_and_a_wrong_command_line_import_the_grammar_alone(words: list[str], status: int) -> None:
    ended, modules = imported(*words)
    assert ended == status
    assert foreign(modules) == set()
    assert rooms(modules) <= BARE
    assert {name for name in modules if name.startswith("listener.web")} <= PROTOCOL
    assert {name.partition(".")[0] for name in modules}.isdisjoint(SLOW)


class Sites(BaseHTTPRequestHandler):
    """Answers like a listener without sites."""

    def do_GET(self) -> None:
        body = b'{"sites": [], "unlisted": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Sites) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_status_imports_neither_the_listener_nor_a_client_library(port: int, tmp_path: Path) -> None:
    config = tmp_path / "listener.yaml"
    config.write_text(f"server: {{port: {port}}}\nsites: no sites at all\n")
    status, modules = imported("status", SYNC_STAGING_CONFIG=str(config), SYNC_STAGING_TOKEN="sst_token")
    assert status == 0
    assert foreign(modules) <= {"yaml"}
    assert rooms(modules) <= {*BARE, "config"}
    assert {name for name in modules if name.startswith("listener.web")} <= PROTOCOL
    assert modules.isdisjoint({"asyncio", "listener.config.settings", "urllib.request"})
