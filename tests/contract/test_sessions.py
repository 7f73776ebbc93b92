"""An sshd that gives few sessions (MaxSessions): all are served in turn, and nobody waits for ever."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from listener.errors import StepTimedOutError
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.sites import RepositoryAddress
from listener.ssh.connection import HostConnection
from tests.contract.test_connection import gone, until
from tests.contract.test_repository import Notes, host_of, sync
from tests.legs import changed, environment_of, pool_of
from tests.saying import say

FEW = pytest.mark.parametrize("most", [1, 2, 3])

SLOW = f"sleep 302.{os.getpid()}"


@FEW
async def test_more_calls_than_sessions_wait_for_their_turn(tmp_path: Path, most: int) -> None:
    with Sshd(tmp_path, f"MaxSessions {most}\n") as own:
        connection = HostConnection(host_of(own), connect_timeout=20)
        said = await asyncio.gather(*(say(connection, f"sleep 0.05; echo {n}") for n in range(12)))
        await connection.close()
    assert said == [f"{n}\n" for n in range(12)]


@FEW
async def test_a_step_that_hangs_in_the_last_session_is_ended_and_the_others_go_on(
    tmp_path: Path, most: int
) -> None:
    with Sshd(tmp_path, f"MaxSessions {most}\n") as own:
        connection = HostConnection(host_of(own), connect_timeout=20)
        others = [asyncio.create_task(say(connection, "sleep 2; echo done")) for _ in range(most - 1)]
        with pytest.raises(StepTimedOutError):
            await say(connection, SLOW, limit=0.5)
        await until(lambda: gone(SLOW.replace(" ", "\0")))
        assert await asyncio.gather(*others) == ["done\n"] * (most - 1)
        assert await say(connection, "echo still here") == "still here\n"
        await connection.close()


@FEW
async def test_shells_and_git_s_services_share_few_sessions(
    published: Published, tmp_path: Path, most: int
) -> None:
    """Live and both legs lie on the one host, and other environments are looked at meanwhile."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    copies = []
    for number in range(3):
        path = tmp_path / f"copy-{number}"
        shutil.copytree(published.path, path, symlinks=True)
        copies.append(Published(path))
    with Sshd(folder, f"MaxSessions {most}\n") as own:
        host = host_of(own)
        pool = pool_of([host], tmp_path / "cache")
        live = RepositoryAddress("studio", str(published.path))
        carried = [
            environment_of(RepositoryAddress("studio", str(copy.path)), source=live) for copy in copies
        ]
        theirs = [changed(each, branch="qa") for each in (environment_of(live),)]
        await asyncio.gather(*(sync(pool, each, quiet=0) for each in (*carried, *theirs)))
        looks = await pool.survey([leg for each in (*carried, *theirs) for leg in each.legs], Notes())
        await pool.close()
    assert all(copy.tree("staging") == published.tree("live") for copy in copies)
    assert published.tree("qa") == published.tree("live")
    assert not [look for look in looks if isinstance(look, Exception)]
