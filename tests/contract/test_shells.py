"""Accounts whose shell is not like sh: as login shells they do, in place of sh they are told as such."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from listener.errors import ShellUnavailableError, StepTimedOutError
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.sites import RepositoryAddress
from listener.ssh.connection import HostConnection
from tests.conftest import unavailable
from tests.contract.test_connection import gone, until
from tests.contract.test_repository import Notes, host_of, sync
from tests.legs import environment_of, pool_of
from tests.saying import say

SHELLS = ["fish", "tcsh", "zsh", "ksh", "dash"]

LOGIN = 'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"\n'
"""What sshd does where the shell is the account's own."""

SLOW = f"sleep 301.{os.getpid()}"


def find(shell: str) -> str:
    return shutil.which(shell) or unavailable(shell)


Reach = Callable[..., HostConnection]


@pytest.fixture
async def reach(tmp_path: Path) -> AsyncIterator[Reach]:
    """Makes a connection to an sshd with more in its configuration, and with a .bashrc."""
    async with AsyncExitStack() as stack:

        def make(extra: str = "", bashrc: str = "", limit: float = 20) -> HostConnection:
            home = tmp_path / "home"
            home.mkdir()
            (home / ".bashrc").write_text(bashrc)
            folder = tmp_path / "sshd"
            folder.mkdir()
            own = stack.enter_context(Sshd(folder, f"SetEnv HOME={home}\n{extra}"))
            connection = HostConnection(host_of(own), connect_timeout=limit)
            stack.push_async_callback(connection.close)
            return connection

        yield make


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_login_shell_that_is_not_like_sh_starts_it(reach: Reach, shell: str) -> None:
    connection = reach(LOGIN.format(shell=find(shell)))
    assert await say(connection, "for each in 1 2; do printf '%s ' \"$each\"; done") == "1 2 "


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_step_that_hangs_under_any_login_shell_is_ended(reach: Reach, shell: str) -> None:
    connection = reach(LOGIN.format(shell=find(shell)))
    mark = f"{SLOW}{SHELLS.index(shell)}"
    with pytest.raises(StepTimedOutError):
        await say(connection, mark, limit=0.5)
    await until(lambda: gone(mark.replace(" ", "\0")))
    assert await say(connection, "echo still here") == "still here\n"


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_sync_to_another_host_goes_through_any_login_shell(
    published: Published, sshd: Sshd, tmp_path: Path, shell: str
) -> None:
    """Its path has what tcsh takes for an old command, and the quote that all quote differently."""
    other = tmp_path / "it's new!one"
    shutil.copytree(published.path, other, symlinks=True)
    folder = tmp_path / "sshd"
    folder.mkdir()
    with Sshd(folder, LOGIN.format(shell=find(shell))) as own:
        pool = pool_of([replace(host_of(own), name="far"), host_of(sshd)], tmp_path / "cache")
        carried = environment_of(
            RepositoryAddress("far", str(other)), source=RepositoryAddress("studio", str(published.path))
        )
        await sync(pool, carried, quiet=0)
        await pool.close()
    assert Published(other).tree("staging") == published.tree("live")


@pytest.mark.parametrize(("shell", "named"), [("fish", "fish"), ("tcsh", "tcsh"), ("zsh", "zsh")])
async def test_another_shell_that_a_start_up_file_runs_in_place_of_sh_is_told_at_once(
    reach: Reach, shell: str, named: str
) -> None:
    connection = reach(bashrc=f"exec {find(shell)}\n")
    with pytest.raises(ShellUnavailableError, match=rf"\b{named} answers in place of sh") as refused:
        await connection.call(Notes(), 10, "hello", {})
    assert refused.value.permanent
    assert "start-up file" in refused.value.remedy


async def test_a_shell_like_sh_may_stand_in_its_place(reach: Reach) -> None:
    connection = reach(bashrc="exec bash --norc\n")
    assert await say(connection, "echo in") == "in\n"
    mark = f"{SLOW}9"
    with pytest.raises(StepTimedOutError):
        await say(connection, mark, limit=0.5)
    await until(lambda: gone(mark.replace(" ", "\0")))


async def test_a_shell_that_is_slow_to_start_is_waited_for(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.ssh.shell.SILENCE", 0.1)
    connection = reach(bashrc="sleep 0.6\n")
    assert await say(connection, "echo in") == "in\n"
    assert await say(connection, "echo again") == "again\n"
