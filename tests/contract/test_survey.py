"""A survey of many repositories on one host: one that hangs or breaks is one that hangs or breaks."""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from listener.errors import ConnectionLostError, StepTimedOutError, SyncError
from listener.observations import Observation
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.sites import Leg, RepositoryAddress
from listener.ssh import HostPool
from listener.ssh.connection import SHELLS
from listener.ssh.shell import Shell
from tests.contract.test_connection import until
from tests.contract.test_repository import Notes, host_of
from tests.legs import environment_of, pool_of
from tests.traps import processes

MANY = 40
"""More than one round trip asks about."""


@pytest.fixture
async def impatient(sshd: Sshd, tmp_path: Path) -> AsyncIterator[HostPool]:
    pool = pool_of([host_of(sshd)], tmp_path / "cache", step_timeout=2)
    yield pool
    await pool.close()


@pytest.fixture
async def patient(sshd: Sshd, tmp_path: Path) -> AsyncIterator[HostPool]:
    pool = pool_of([host_of(sshd)], tmp_path / "cache", step_timeout=300)
    yield pool
    await pool.close()


@pytest.fixture
def asked(impatient: HostPool) -> list[int]:
    """How many legs each question was about, as they are asked."""
    counts: list[int] = []
    connection = impatient._connections["studio"]
    call = connection.call

    async def counted(*arguments: Any, **more: Any) -> str:
        if arguments[2] == "survey":
            counts.append(len(more["batch"].paths))
        return await call(*arguments, **more)

    connection.call = counted  # type: ignore[method-assign]
    return counts


Many = Callable[[], list[Published]]


@pytest.fixture
def repositories(published: Published, tmp_path: Path) -> list[Published]:
    """Copies of one repository."""
    made = []
    for number in range(MANY):
        path = tmp_path / f"site-{number}"
        shutil.copytree(published.path, path, symlinks=True)
        made.append(Published(path))
    return made


def hang(repository: Published) -> Path:
    """Let every git wait for ever in a repository, as on a network file system that is gone."""
    packed = repository.path / ".git" / "packed-refs"
    packed.unlink(missing_ok=True)
    os.mkfifo(packed)
    return packed


def legs_of(repositories: list[Published]) -> list[Leg]:
    return [
        environment_of(RepositoryAddress("studio", str(repository.path))).legs[0]
        for repository in repositories
    ]


async def survey(pool: HostPool, repositories: list[Published]) -> list[Observation | SyncError]:
    return await pool.survey(legs_of(repositories), Notes())


async def test_repositories_that_hang_fail_alone_and_the_others_are_asked_in_the_same_round_trips(
    impatient: HostPool, repositories: list[Published], asked: list[int]
) -> None:
    hanging = {0, 1, 17, 31}
    for number in hanging:
        hang(repositories[number])
    found = await survey(impatient, repositories)
    for number, answer in enumerate(found):
        if number in hanging:
            assert isinstance(answer, StepTimedOutError)
            assert str(repositories[number].path) in answer.message
        else:
            assert isinstance(answer, Observation)
            assert answer.branch is not None
            assert answer.branch.commit == repositories[number].commit("staging")
    assert sorted(asked, reverse=True) == [32, 31, 30, 14, 8], "what has answered is not asked again"


async def test_a_repository_that_did_not_answer_is_asked_alone_until_it_does(
    impatient: HostPool, repositories: list[Published], asked: list[int]
) -> None:
    packed = hang(repositories[5])
    await survey(impatient, repositories)
    asked.clear()
    found = await survey(impatient, repositories)
    assert sorted(asked) == [1, 7, 32]
    assert [isinstance(answer, Observation) for answer in found].count(False) == 1
    packed.unlink()
    assert all(isinstance(answer, Observation) for answer in await survey(impatient, repositories))
    asked.clear()
    await survey(impatient, repositories)
    assert sorted(asked) == [8, 32]


async def test_nothing_is_left_of_a_git_that_hung_in_a_survey(
    impatient: HostPool, repositories: list[Published]
) -> None:
    hang(repositories[2])
    await survey(impatient, repositories)
    assert not [pid for pid in processes() if _works_in(Path(f"/proc/{pid}"), repositories[2].path)]


def _works_in(process: Path, repository: Path) -> bool:
    try:
        return (process / "cwd").readlink() == repository / ".git"
    except OSError:
        return False


async def test_a_repository_at_which_the_shell_is_killed_fails_alone(
    sshd: Sshd, repositories: list[Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where reading it takes more memory than the host has."""
    programs = tmp_path / "programs"
    programs.mkdir()
    git = programs / "git"
    git.write_text(
        f"#!/bin/sh\ncase $PWD in {repositories[3].path}/*) kill -KILL 0 ;; esac\n"
        f'exec {shutil.which("git")} "$@"\n'
    )
    git.chmod(0o755)
    folder = tmp_path / "own-sshd"
    folder.mkdir()
    with Sshd(folder, f"SetEnv HOME={folder} PATH={programs}:{os.environ['PATH']}\n") as own:
        pool = pool_of([host_of(own)], tmp_path / "cache", step_timeout=20)
        found = await survey(pool, repositories[:8])
        await pool.close()
    assert isinstance(found[3], ConnectionLostError)
    assert [isinstance(answer, Observation) for answer in found].count(False) == 1


async def test_a_host_that_is_gone_fails_all_of_its_repositories_at_once(
    own_sshd: Sshd, repositories: list[Published], tmp_path: Path
) -> None:
    pool = pool_of([host_of(own_sshd)], tmp_path / "cache")
    await survey(pool, repositories)
    own_sshd.stop()
    found = await survey(pool, repositories)
    assert all(isinstance(answer, SyncError) for answer in found)
    own_sshd.start()
    assert all(isinstance(answer, Observation) for answer in await survey(pool, repositories))
    await pool.close()


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """By verb: how many requests of that verb were in a shell whenever one more began."""
    counts: dict[str, list[int]] = {}
    now: Counter[str] = Counter()
    call = Shell.call

    async def counted(self: Shell, verb: str, *parts: Any, **more: Any) -> Any:
        now[verb] += 1
        counts.setdefault(verb, []).append(now[verb])
        try:
            return await call(self, verb, *parts, **more)
        finally:
            now[verb] -= 1

    monkeypatch.setattr(Shell, "call", counted)
    return counts


async def test_a_survey_takes_one_shell_of_a_host_and_a_run_has_the_others(
    patient: HostPool, repositories: list[Published], lent: dict[str, list[int]]
) -> None:
    for number in range(0, MANY, 10):
        hang(repositories[number])
    surveys = [
        asyncio.create_task(survey(patient, repositories[start : start + 10])) for start in range(0, MANY, 10)
    ]
    await until(lambda: _hangs_in(repositories))
    run = patient.of(legs_of(repositories)[1], Notes())
    looks = await asyncio.gather(*(run.observe() for _ in range(SHELLS - 1)))
    assert [look.live is None for look in looks] == [False] * (SHELLS - 1)
    assert not any(task.done() for task in surveys), "each hangs for as long as the limit"
    assert lent["survey"] == [1]
    for task in surveys:
        task.cancel()
    await asyncio.wait(surveys)


async def test_a_survey_of_legs_that_go_through_the_cache_takes_one_shell_of_a_host(
    patient: HostPool, published: Published, repositories: list[Published], lent: dict[str, list[int]]
) -> None:
    source = RepositoryAddress("studio", str(published.path))
    carried = [RepositoryAddress("studio", str(each.path)) for each in repositories[:6]]
    legs = [environment_of(each, source=source).legs[0] for each in carried]
    found = await patient.survey(legs, Notes())
    assert all(isinstance(answer, Observation) for answer in found)
    assert max(lent["observe"]) == 1


async def test_a_search_for_the_sites_of_a_pattern_does_not_wait_for_a_survey(
    patient: HostPool, repositories: list[Published]
) -> None:
    hang(repositories[0])
    looking = asyncio.create_task(survey(patient, repositories[:1]))
    await until(lambda: _hangs_in(repositories))
    folder = repositories[0].path.parent
    pattern = RepositoryAddress("studio", f"{folder}/{{site}}", str(folder))
    assert await patient.present(pattern, "site-1", Notes()) == ["site-1"]
    assert len(await patient.present(pattern, None, Notes())) >= MANY
    assert not looking.done()
    looking.cancel()
    await asyncio.wait([looking])


async def _hangs_in(repositories: list[Published]) -> bool:
    return any(_works_in(Path(f"/proc/{pid}"), each.path) for pid in processes() for each in repositories)
