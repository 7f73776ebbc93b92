"""systemd's own journald reads what we send it."""

import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from listener.logs.journald import JournalStream

JOURNALD = Path("/lib/systemd/systemd-journald")
NAMESPACE = f"sync-staging-{os.getpid()}"
FOLDER = Path(f"/run/systemd/journal.{NAMESPACE}")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not JOURNALD.exists() or not shutil.which("journalctl"),
    reason="needs root, to start a journald of its own, and systemd's programs",
)


@pytest.fixture
def journal() -> Iterator[Path]:
    """Yield the socket of a journald with a namespace of its own."""
    with subprocess.Popen([JOURNALD, NAMESPACE], stderr=subprocess.DEVNULL) as journald:
        try:
            until((FOLDER / "socket").exists)
            yield FOLDER / "socket"
        finally:
            journald.terminate()
            journald.wait()
            shutil.rmtree(FOLDER, ignore_errors=True)
            for left in Path("/run/log/journal").glob(f"*.{NAMESPACE}"):
                shutil.rmtree(left, ignore_errors=True)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def entries(*words: str) -> list[str]:
    """Return the messages that `journalctl` shows."""
    command = ["journalctl", f"--namespace={NAMESPACE}", "--no-pager", "-o", "json", *words]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [each["SYNC_STAGING_EVENT"] for each in map(json.loads, lines) if "SYNC_STAGING_EVENT" in each]


def test_journalctl_finds_lines_by_priority_and_by_their_facts(journal: Path) -> None:
    stream = JournalStream(io.StringIO(), str(journal))
    for event, level, site in (
        ("start", "info", "mysite"),
        ("again", "warning", "mysite"),
        ("run", "error", "other"),
    ):
        stream.write(json.dumps({"event": event, "level": level, "site": site}) + "\n")
    stream.write(json.dumps({"event": "large", "level": "info", "text": "x" * (9 << 20)}) + "\n")
    until(lambda: "large" in entries())
    assert entries("-p", "warning") == ["again", "run"]
    assert entries("SYNC_STAGING_SITE=mysite") == ["start", "again"]
    assert entries("-t", "sync-staging") == ["start", "again", "run", "large"]
