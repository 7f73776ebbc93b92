"""Repositories made to hurt: whoever syncs them, the machine of the listener, or the site beside them."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.attack.conftest import Besiege
from tests.conftest import age
from tests.listening import configuration

LONG = bool(os.environ.get("SYNC_STAGING_ATTACK"))

SWOLLEN = 1 << (30 if LONG else 27)
"""Bytes of a file that is small on the way."""

QUICK = {"quiet": 0.1, "patience": 1, "backoff": 0.1, "backoff_most": 0.2, "attempts": 1}


def hostile(published: Published, tmp_path: Path, name: str = "hostile") -> Published:
    """Another site's repository, to be made so."""
    path = tmp_path / name / "published"
    shutil.copytree(published.path, path, symlinks=True)
    return Published(path)


def bomb(repository: Published, levels: int = 9, width: int = 10) -> None:
    """Let live be a few trees that hold each other: `width` to the power of `levels` paths."""
    made = repository.git("hash-object", "-w", "--stdin", stdin=b"x")
    entry = f"100644 blob {made}"
    for _ in range(levels):
        listing = "".join(f"{entry}\t{number}\n" for number in range(width))
        entry = f"040000 tree {repository.git('mktree', stdin=listing.encode())}"
    commit = repository.git("commit-tree", entry.split()[2], "-m", "a bomb")
    repository.git("update-ref", "refs/heads/live", commit)
    age(repository, 60)


def swollen(repository: Published) -> None:
    """Let live have a file that is small on the way and large where it is unpacked."""
    with (repository.path / "zeros").open("wb") as zeros:
        zeros.truncate(SWOLLEN)
    repository.git("add", "zeros")
    repository.git("commit", "--quiet", "-m", "zeros")
    repository.git("branch", "--force", "live")
    repository.git("checkout", "--quiet", "--force", "master")
    age(repository, 60)


def surroundings(
    tmp_path: Path, sshd: Sshd, published: Published, evil: Published, **more: Any
) -> dict[str, Any]:
    """The good site, and another one whose live is hostile: synced where it lies, and elsewhere."""
    whole = configuration(tmp_path, sshd, published.path)
    other = tmp_path / "other.git"
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), str(other))
    far = {"repositories": [{"host": "studio", "path": str(other), "branch": "staging"}]}
    site = {
        "repository": {"host": "studio", "path": str(evil.path)},
        "environments": {"staging": {"follow": True}, "far": far},
    }
    return {
        "sites": {**whole["sites"], "evil": site},
        "sync": {**QUICK, "cache": str(tmp_path / "cache"), **more},
    }


async def test_trees_that_hold_each_other_fill_no_memory_and_stop_no_other_site(
    besiege: Besiege, tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    evil = hostile(published, tmp_path)
    bomb(evil)
    limits = {"step_timeout": 2, "transfer_timeout": 600}
    async with besiege(**surroundings(tmp_path, sshd, published, evil, **limits)) as siege:
        for environment, errors in (
            ("staging", {"step-timed-out", "remote-step"}),
            ("far", {"unsupported-repository", "cache"}),
        ):
            siege.tried += 1
            error = ""
            while error in {"", "step-timed-out", "host-unreachable"} - errors:
                # On its way to the bomb it may meet a host that is slow, and not wait for it.
                _, _, headers = await siege.listener.sync(environment, site="evil")
                error = (await siege.listener.ended(headers["X-Run-Id"]))["outcome"]["error"]
            assert error in errors
        await siege.synced()


async def test_a_file_that_swells_is_passed_on_in_little_memory(
    besiege: Besiege, tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    evil = hostile(published, tmp_path)
    swollen(evil)
    async with besiege(**surroundings(tmp_path, sshd, published, evil)) as siege:
        siege.tried += 1
        siege.grew_most = SWOLLEN >> 22
        assert (await siege.listener.sync("far", site="evil"))[0] == 200
        assert (await siege.listener.sync())[0] == 200
    there = Published(tmp_path / "other.git")
    assert there.tree("staging") == evil.tree("live")


CONFIG = """
[core]
	fsmonitor = touch {canary}
	sshCommand = touch {canary}
	pager = touch {canary}
	editor = touch {canary}
	askPass = touch {canary}
	gitProxy = touch {canary}
	attributesFile = {folder}/attributes
[alias]
	for-each-ref = !touch {canary}
	update-ref = !touch {canary}
	diff-tree = !touch {canary}
[diff]
	external = touch {canary}
[diff "evil"]
	command = touch {canary}
	textconv = touch {canary}
[filter "evil"]
	clean = touch {canary}
	smudge = touch {canary}
[gpg]
	program = touch {canary}
[commit]
	gpgSign = true
[log]
	showSignature = true
[include]
	path = {folder}/missing
[remote "origin"]
	url = ext::touch% {canary}
	uploadpack = touch {canary}
	promisor = true
[submodule]
	recurse = true
[fetch]
	recurseSubmodules = true
[gc]
	auto = 1
	autoDetach = false
[uploadpack]
	allowAnySHA1InWant = true
"""
"""Every setting that names a program, as far as whoever only reads or moves refs might come upon it."""


async def test_a_repository_s_own_settings_run_nothing_on_the_listener_s_machine_or_its_host(
    besiege: Besiege, tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    evil, canary = hostile(published, tmp_path), tmp_path / "canary"
    attributes = tmp_path / "attributes"
    attributes.write_text("* diff=evil filter=evil\n")
    modules = f'[submodule "x"]\n\tpath = x\n\turl = ext::touch% {canary}\n\tupdate = !touch {canary}\n'
    for name, text in ((".gitattributes", "* diff=evil filter=evil\n"), (".gitmodules", modules)):
        (evil.path / name).write_text(text)
    evil.git("checkout", "--quiet", "live")
    evil.git("add", ".gitattributes", ".gitmodules")
    evil.git("commit", "--quiet", "-m", "hostile")
    evil.git("checkout", "--quiet", "master")
    with (evil.path / ".git" / "config").open("a") as settings:
        settings.write(CONFIG.format(canary=canary, folder=tmp_path))
    age(evil, 60)
    async with besiege(**surroundings(tmp_path, sshd, published, evil)) as siege:
        for environment in ("staging", "far"):
            siege.tried += 1
            assert (await siege.listener.sync(environment, site="evil"))[0] == 200
        await siege.listener.call("GET", "/api/v1/sites")
    assert not canary.exists()
    cache = (tmp_path / "cache" / "evil.git" / "config").read_text()
    assert "canary" not in cache
    assert not (tmp_path / "cache" / "evil.git" / "hooks").exists()


BORROWED = ("objects/info/alternates", "objects/info/http-alternates", "info/grafts", "packed-refs")


@pytest.mark.parametrize("part", BORROWED)
async def test_a_repository_whose_own_files_are_garbage_fails_alone(
    besiege: Besiege, tmp_path: Path, sshd: Sshd, published: Published, part: str
) -> None:
    evil = hostile(published, tmp_path)
    file = evil.path / ".git" / part
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"/nowhere\n../../../../../etc\n\x00\xff\x1b[2J$(touch canary)\n" * 1000)
    age(evil, 60)
    async with besiege(**surroundings(tmp_path, sshd, published, evil)) as siege:
        for environment in ("staging", "far"):
            siege.tried += 1
            assert (await siege.listener.sync(environment, site="evil"))[0] in {200, 500}
        assert (await siege.listener.sync())[0] == 200
