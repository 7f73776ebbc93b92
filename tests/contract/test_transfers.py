"""Git's transfers between this machine and a host, interrupted on this side: nothing of them is left over."""

import array
import asyncio
import fcntl
import os
import signal
import termios
from typing import Any, ClassVar

import pytest

from listener.errors import StepTimedOutError
from listener.rehearsal.git import git
from listener.ssh import service
from tests.contract.test_interruptions import Step, cases, check_forward, made_good
from tests.contract.test_repository import a_run
from tests.legs import only
from tests.scenes import Interruption, Place, Scene, git_only, place, with_shell
from tests.traps import Caught, group, until

__all__ = ["git_only", "place", "with_shell"]


def own_git_killed(scene: Scene, caught: Caught) -> None:
    """The listener's own git is killed with all that it has started, while the host keeps it waiting."""
    for pid in scene.own_git():
        os.kill(pid, signal.SIGKILL)
    scene.traps.free()


def own_git_killed_alone(scene: Scene, caught: Caught) -> None:
    """Only the git process that the listener has started is killed."""
    for pid in scene.own_git():
        if pid == group(pid):
            os.kill(pid, signal.SIGKILL)
    scene.traps.free()


@cases(
    {kind: [("pack-objects", 0), ("unpack-objects", 0)] for kind in ("another", "forge")},
    own_git_killed,
    own_git_killed_alone,
)
async def test_the_listeners_own_git_that_is_killed_leaves_no_process_and_a_cache_that_works(
    place: Place, kind: str, step: Step, interrupt: Interruption
) -> None:
    scene, run = place(kind), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, step, interrupt)
    assert ended[1] is None or not ended[1].permanent
    assert scene.own_git() == []
    check_forward(scene, await made_good(scene, run, ended), old)
    git(scene.cache, "fsck", "--no-dangling")


def left_alone(scene: Scene, caught: Caught) -> None:
    """The host just takes its time."""


@cases({"another": [("pack-objects", 0)], "forge": [("pre-receive", 0)]}, left_alone)
async def test_a_transfer_that_outlasts_its_limit_is_ended_with_all_its_processes(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str, step: Step, interrupt: Interruption
) -> None:
    monkeypatch.setattr(service, "ENDING", 0.5)
    scene, run = place(kind, transfer_timeout=3), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, step, interrupt)
    assert isinstance(ended[1], StepTimedOutError)
    assert scene.own_git() == []
    check_forward(scene, await made_good(scene, run, ended), old)


class Deaf(service._GitSocket):
    """Does not hear what git says, as when the host reads too slowly."""

    first: "ClassVar[Deaf | None]" = None
    """The others hear."""

    def connection_made(self, transport: Any) -> None:
        if Deaf.first is None:
            Deaf.first = self
            self.socket = transport.get_extra_info("socket")
            transport.pause_reading()

    def unheard(self) -> bool:
        """Whether git has said something."""
        count = array.array("i", [0])
        fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, count)
        return count[0] > 0


async def test_git_ends_with_the_connection_even_where_its_words_were_not_read_yet(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deaf, "first", None)
    monkeypatch.setattr(service, "_GitSocket", Deaf)
    scene, run = place("live", transfer_timeout=60), a_run()
    old = scene.carrier.commit("staging")
    attempt = asyncio.create_task(scene.attempt(run))
    await until(lambda: Deaf.first is not None and Deaf.first.unheard())
    scene.proxy.cut()
    progress, error = await attempt
    assert error is None
    check_forward(scene, only(progress), old)
