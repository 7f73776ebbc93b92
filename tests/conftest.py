"""The real parts that the tests share."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from listener.rehearsal import published as rehearsal
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, find_sshd
from listener.sites import Access
from tests import figures
from tests.cluster import Cluster, find_programs
from tests.gate import bound, install
from tests.listening import configuration, written
from tests.proxy import Proxy
from tests.publisher import StudioPublisher, metadata

REQUIRE_ALL = os.environ.get("SYNC_STAGING_REQUIRE_ALL") == "1"

MEMORY = Path("/dev/shm")

ROOM = 2 << 30
"""Bytes: the tests write a fifth of that at a time."""

GIT_SHELL = 'ForceCommand git-shell -c "$SSH_ORIGINAL_COMMAND"\n'


def unavailable(what: str) -> NoReturn:
    """Skip a test whose real part is missing, or fail it where every part is required."""
    if REQUIRE_ALL:
        pytest.fail(f"{what} is required here, and missing")
    pytest.skip(f"{what} is missing")


def pytest_configure() -> None:
    """Let SIGINT end what the tests start, also where they were started in the background themselves.

    Bytecode is kept, whatever the environment says: compiling costs each process more than half a second.
    Temporary files lie in memory where it has room: they cost a third less there, and outlive no test.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "TMPDIR" not in os.environ and has_room(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def has_room(folder: Path) -> bool:
    """Whether a folder in memory may take what the tests write and run."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    runs = os.access(folder, os.W_OK | os.X_OK) and not found.f_flag & os.ST_NOEXEC
    return runs and min(found.f_bavail * found.f_frsize, half) > ROOM


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what stays to the end: modules and tests."""
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what was counted here, if this is one of several processes."""
    handed_over = getattr(session.config, "workeroutput", None)
    if handed_over is not None:
        handed_over["figures"] = figures.told()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of several processes has counted; there is none if it died."""
    figures.take_over(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the long tests have counted."""
    for line in figures.table():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd that all tests share: do not stop it."""
    if find_sshd() is None:
        unavailable("sshd (openssh-server)")
    with Sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="session")
def git_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd whose account runs nothing but git's own services."""
    if find_sshd() is None:
        unavailable("sshd (openssh-server)")
    with Sshd(tmp_path_factory.mktemp("git-sshd"), GIT_SHELL) as running:
        yield running


@pytest.fixture(scope="session")
def restricted_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd whose key is bound to the gate, for what lies in the tests' temporary folder."""
    if find_sshd() is None:
        unavailable("sshd (openssh-server)")
    folder = tmp_path_factory.mktemp("restricted-sshd")
    with Sshd(folder, options=bound(install(folder / "bin"), tmp_path_factory.getbasetemp())) as running:
        yield running


@pytest.fixture(scope="session")
def sshd_of(sshd: Sshd, git_sshd: Sshd, restricted_sshd: Sshd) -> Mapping[Access, Sshd]:
    """The sshd that gives each kind of access."""
    return {Access.SH: sshd, Access.GIT: git_sshd, Access.RESTRICTED: restricted_sshd}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that all tests share; one that stops it starts it again."""
    programs = find_programs()
    if programs is None:
        unavailable("PostgreSQL (postgresql)")
    with Cluster(programs) as running:
        yield running


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd of one test's own, which may stop it or change its key."""
    if find_sshd() is None:
        unavailable("sshd (openssh-server)")
    folder = tmp_path / "sshd"
    folder.mkdir()
    with Sshd(folder) as running:
        yield running


@pytest.fixture
async def proxy(sshd: Sshd) -> AsyncIterator[Proxy]:
    """A way to the shared sshd that can be cut, frozen and slowed down."""
    async with Proxy(sshd.port) as running:
        yield running


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A repository as Studio leaves it, to be copied."""
    return rehearsal.build(tmp_path_factory.mktemp("pristine"), files=40)


@pytest.fixture
def published(pristine: Published, tmp_path: Path) -> Published:
    """A fresh copy of a repository as Studio leaves it, untouched for a while."""
    folder = tmp_path / "mysite"
    shutil.copytree(pristine.path.parent, folder, symlinks=True)
    copy = Published(folder / "published")
    copy.git("update-index", "-q", "--refresh")
    age(copy, 60)
    return copy


def age(published: Published, seconds: float) -> None:
    """Make the repository look as if nobody had touched it for so long."""
    for file in metadata(published).rglob("*"):
        if file.is_file():
            then = file.stat().st_mtime - seconds
            os.utime(file, (then, then))


@pytest.fixture
def configured(tmp_path: Path, sshd: Sshd, published: Published) -> Callable[..., Path]:
    """Writes a configuration for the repository; what is given replaces whole sections."""

    def write(**overrides: Any) -> Path:
        return written(
            tmp_path, configuration(tmp_path, overrides.pop("sshd", sshd), published.path, **overrides)
        )

    return write


@pytest.fixture
def publisher(published: Published) -> StudioPublisher:
    """Studio, publishing into the repository."""
    return StudioPublisher(published)
