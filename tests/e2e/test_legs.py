"""An environment on three hosts, of which one is down: the same run catches up, and does nothing twice."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.git import git
from listener.rehearsal.processes import MARK
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.conftest import GIT_SHELL
from tests.listening import Client, client, configuration, daemon, written

HOSTS = {"studio": "", "eu1": "", "forge": GIT_SHELL}
"""What each host's sshd is told besides; the last one runs nothing but git."""


@dataclass
class World:
    """Live's own repository and two others, each on a host of its own that can be stopped."""

    hosts: dict[str, Sshd]
    carriers: dict[str, Published]
    path: Path
    """The listener's configuration."""

    def moves(self) -> dict[str, int]:
        """How often each repository's staging has been moved."""
        return {
            name: len(each.git("reflog", "show", "--format=%H", "staging").splitlines())
            for name, each in self.carriers.items()
        }

    def equal(self) -> set[str]:
        """The hosts on which staging is equal to live."""
        live = self.carriers["studio"].tree("live")
        return {name for name, each in self.carriers.items() if each.tree("staging") == live}


@pytest.fixture
def world(sshd: Sshd, published: Published, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        hosts = {}
        for name, extra in HOSTS.items():
            folder = tmp_path / f"host-{name}"
            folder.mkdir()
            hosts[name] = stack.enter_context(Sshd(folder, extra))
            let_in(hosts[name], hosts["studio"])
        carriers = {"studio": published}
        for name in ("eu1", "forge"):
            git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), f"{name}.git")
            carriers[name] = Published(tmp_path / f"{name}.git")
            carriers[name].git("config", "core.logAllRefUpdates", "always")
        yield World(hosts, carriers, configured(tmp_path, hosts, carriers))


def let_in(host: Sshd, other: Sshd) -> None:
    """Let the key of another host's client log in too."""
    _, key = (other.folder / "authorized_keys").read_text().split(" ", 1)
    with (host.folder / "authorized_keys").open("a") as file:
        file.write(f'\nenvironment="{MARK}={host.mark}" {key}')


def configured(folder: Path, hosts: dict[str, Sshd], carriers: dict[str, Published]) -> Path:
    """Write the configuration of an environment that lies on all of them."""
    whole = configuration(folder, hosts["studio"], carriers["studio"].path)
    known_hosts = folder / "known_hosts"
    known_hosts.write_text("".join(each.known_hosts.read_text() for each in hosts.values()))
    whole["ssh"]["known_hosts"] = str(known_hosts)
    entries: dict[str, dict[str, Any]] = {
        name: {"address": each.address, "port": each.port, "user": each.user} for name, each in hosts.items()
    }
    entries["forge"]["access"] = "git"
    whole["hosts"] = entries
    repositories = [{"host": name, "path": str(each.path)} for name, each in carriers.items()]
    staging = {"follow": True, "repositories": repositories}
    whole["sites"]["mysite"]["environments"] = {"staging": staging}
    whole["sync"]["cache"] = str(folder / "cache")
    return written(folder, whole)


async def view(listener: Client, run: str) -> dict[str, Any]:
    _, found, _ = await listener.call("GET", f"/api/v1/runs/{run}")
    viewed: dict[str, Any] = found
    return viewed


async def failed(listener: Client, run: str, times: int) -> dict[str, Any]:
    """A run once it has failed so often and is waiting again."""
    async with asyncio.timeout(300):
        while (found := await view(listener, run))["failures"] < times or found["outcome"] is None:
            await asyncio.sleep(0.02)
    return found


def errors(run: dict[str, Any]) -> dict[str, str]:
    """By host, the error of each leg."""
    return {leg["repository"].partition(":")[0]: leg["error"] for leg in run["outcome"]["legs"]}


@pytest.mark.parametrize("down", HOSTS)
async def test_a_host_that_is_down_is_named_and_caught_up_with_and_no_other_leg_is_done_twice(
    world: World, down: str
) -> None:
    before = world.moves()
    world.hosts[down].stop()
    async with daemon(world.path) as running, client(running.url) as listener:
        status, body, headers = await listener.sync(headers={"Prefer": "wait=1"})
        assert (status, body) == (500, {"message": "Internal server error"})
        run = headers["X-Run-Id"]
        waiting = await failed(listener, run, 2)
        assert waiting["outcome"]["error"] == "legs-failed"
        told = errors(waiting)
        assert told[down] == "host-unreachable"
        if down != "studio":
            # Where live's own host is down, nobody can be made equal to it.
            assert {host for host, error in told.items() if not error} == set(HOSTS) - {down}
            assert world.equal() == set(HOSTS) - {down}
        world.hosts[down].start()
        ended = await listener.ended(run)
        assert (ended["id"], ended["state"]) == (run, "succeeded")
        assert set(errors(ended).values()) == {""}
    assert world.equal() == set(HOSTS)
    assert world.moves() == {name: count + 1 for name, count in before.items()}


async def test_who_waits_is_answered_once_the_last_host_is_back(world: World) -> None:
    world.hosts["eu1"].stop()
    async with daemon(world.path) as running, client(running.url) as listener:
        call = asyncio.create_task(listener.sync())
        async with asyncio.timeout(300):
            while not (runs := (await listener.call("GET", "/api/v1/runs"))[1]["runs"]):
                await asyncio.sleep(0.02)
        await failed(listener, runs[0]["id"], 1)
        assert not call.done()
        world.hosts["eu1"].start()
        assert (await call)[:2] == (200, {"message": "OK"})
    assert world.equal() == set(HOSTS)


async def test_a_listener_killed_while_a_host_is_down_knows_which_legs_are_done(world: World) -> None:
    before = world.moves()
    world.hosts["forge"].stop()
    async with daemon(world.path) as running, client(running.url) as listener:
        _, answer, _ = await listener.deliver("d-1")
        (run,) = answer["runs"]
        await failed(listener, run, 1)
        await running.kill()
        world.hosts["forge"].start()
        await running.start()
        ended = await listener.ended(run)
        assert ended["state"] == "succeeded"
        moved = {leg["repository"].partition(":")[0]: leg for leg in ended["outcome"]["legs"]}
        assert all(leg["moved"] and leg["old"] != leg["new"] for leg in moved.values())
    assert world.equal() == set(HOSTS)
    assert world.moves() == {name: count + 1 for name, count in before.items()}


async def test_a_rollback_is_not_begun_on_some_legs_while_the_host_of_another_is_down(world: World) -> None:
    trees = {name: each.tree("staging") for name, each in world.carriers.items()}
    async with daemon(world.path) as running, client(running.url) as listener:
        _, _, headers = await listener.sync()
        before = world.moves()
        world.hosts["eu1"].stop()
        path = f"/api/v1/runs/{headers['X-Run-Id']}/rollback"
        status, problem, _ = await listener.call("POST", path)
        assert (status, problem["code"]) == (502, "host-unreachable")
        assert world.moves() == before
        world.hosts["eu1"].start()
        status, started, _ = await listener.call("POST", path)
        assert status == 202
        assert (await listener.ended(started["id"]))["state"] == "succeeded"
    assert {name: each.tree("staging") for name, each in world.carriers.items()} == trees
    assert world.moves() == {name: count + 1 for name, count in before.items()}
