"""The script by itself, in each shell, with tools that fail: it leaves nothing behind, and says why."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from listener.errors import BrokenRefError, NotARepositoryError, SyncError
from listener.observations import COMMITTER_EMAIL, COMMITTER_NAME, Drift, Observation
from listener.plans import Applied, decide
from listener.rehearsal.git import ENVIRONMENT
from listener.rehearsal.published import Published
from listener.sites import Environment, Policy, RepositoryAddress
from listener.ssh.channel import Reply
from listener.ssh.dialogue import REMOTE, Fields, go_or_stop, request
from listener.ssh.remote_errors import error_of
from listener.ssh.replies import read_applied, read_observation
from listener.ssh.repository import observe_fields
from tests.conftest import age
from tests.contract.test_gate import SHELLS, shell_of

NAME, TOKEN = "sync-staging-0123456789abcdef", "0123456789abcdef"

LOGGING = """\
#!/bin/sh
echo "{name} $*" >>"{log}"
exec {real} "$@"
"""
"""A tool that tells how often it was called."""


@dataclass
class Script:
    """The script in one shell, over one repository; `tools` stand before the system's."""

    shell: str
    published: Published
    folder: Path
    tools: dict[str, str] = field(default_factory=dict)

    @property
    def inside(self) -> Path:
        return self.published.path / ".git"

    def replace(self, name: str, text: str) -> None:
        """Put a tool of ours in the place of one of the system's; `REAL` in its text is that."""
        bin_ = self.folder / "bin"
        bin_.mkdir(exist_ok=True)
        found = shutil.which(name)
        assert found
        (bin_ / name).write_text("#!/bin/sh\n" + text.replace("REAL", found) + "\n")
        (bin_ / name).chmod(0o755)

    def restore(self, name: str) -> None:
        (self.folder / "bin" / name).unlink()

    def start(self) -> "subprocess.Popen[bytes]":
        script = self.folder / "script.sh"
        script.write_text(f'{REMOTE}\nss_dialogue "$1"\n')
        return subprocess.Popen(
            [*self.shell.split(), str(script), NAME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            start_new_session=True,
        )

    def ask(self, verb: str, *parts: Fields) -> tuple[int, str, str]:
        """Ask once; return the status, what was said, and what was said on standard error."""
        with self.start() as process:
            out, err = process.communicate(request(TOKEN, verb, parts), timeout=60)
        said, _, status = out.decode().partition(f"\n{NAME} 0\n")[2].partition(f"\n{TOKEN} ")
        return int(status or 255), said, err.decode().partition(f"\n{NAME}\n")[2].partition(f"\n{TOKEN}\n")[0]

    def environment(self, policy: Policy = Policy.FORWARD, branch: str = "staging") -> Environment:
        at = RepositoryAddress("studio", str(self.published.path))
        return Environment.of("mysite", "staging", at, "live", policy, [(at, branch)], follow=True)

    def observe(self, *, counting: bool = False) -> Observation:
        leg = self.environment().legs[0]
        status, said, _ = self.ask("observe", observe_fields(leg, 10, counting=counting))
        assert status == 0, said
        return read_observation(leg, said)

    def apply(self, seen: Observation, kind: str = "forward-commit", **more: str) -> Fields:
        return {
            "path": str(self.published.path), "live": "live", "branch": "staging", "seen": seen.fingerprint,
            "kind": kind, "run": "run-1", "date": "1700000000", "subject": "subject", "body": "body", **more,
        }  # fmt: skip

    def advance(self, expected: Observation, quiet: float) -> Fields:
        limit = str(round(quiet * 1000) + 1)
        more = {"seen": expected.standing, "quiet": limit, "compare": "tree", "listed": "9", "room": "999"}
        return {**self.apply(expected, "forward"), **more}

    def left(self) -> list[str]:
        """What of ours would stop Studio, or lies about."""
        return sorted(
            str(path.relative_to(self.inside))
            for path in (*self.inside.rglob("*.lock"), *self.inside.glob("sync-staging-own*"))
        )

    def wait_until(self, path: Path) -> None:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline, path
            time.sleep(0.01)


@pytest.fixture(params=SHELLS)
def script(request: pytest.FixtureRequest, published: Published, tmp_path: Path) -> Script:
    return Script(shell_of(request.param), published, tmp_path)


@pytest.fixture
def dashed(published: Published, tmp_path: Path) -> Script:
    """In one shell, where all shells do the same."""
    return Script(shell_of("dash"), published, tmp_path)


def test_our_commits_are_made_by_whom_the_listener_tells_them_by() -> None:
    assert f"\nss_name={COMMITTER_NAME}\nss_email={COMMITTER_EMAIL}\n" in REMOTE


def test_a_branch_is_moved_and_nothing_is_left(script: Script) -> None:
    live = script.published.commit("live")
    status, said, err = script.ask("apply", script.apply(script.observe()))
    assert (status, err) == (0, "")
    assert said.startswith("detached\nnow ")
    assert script.published.tree("staging") == script.published.tree("live")
    assert script.published.git("rev-parse", "staging^2") == live
    assert script.published.git("log", "-1", "--format=%cn %ce %ct", "staging") == (
        f"{COMMITTER_NAME} {COMMITTER_EMAIL} 1700000000"
    )
    assert script.published.is_clean()
    assert script.left() == []


TEXTS = (
    "'; touch x; '",
    "$(touch x)",
    "\u00c1\u00c2 \u0081\u0088 ü 😀",
    "a\n+b\n.\n,\n=c\n\n",
    "  blanks\t ",
    "back\\slash \\n",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_field_arrives_to_the_letter(script: Script, text: str) -> None:
    fields = script.apply(script.observe(), subject="-x", body=f"{text}|")
    assert script.ask("apply", fields)[0] == 0
    assert script.published.git("log", "-1", "--format=%B", "staging") == f"-x\n\n{text}|\n"


FAILING = {
    "mv": "exit 1",
    "ln": "exit 1",
    "ln, when it has linked": 'REAL "$@"; exit 1',
    "git update-ref": 'case " $* " in *" update-ref "*) exit 128 ;; esac; exec REAL "$@"',
    "git commit-tree": 'case " $* " in *" commit-tree "*) exit 128 ;; esac; exec REAL "$@"',
    "git for-each-ref": 'case " $* " in *" for-each-ref "*) exit 128 ;; esac; exec REAL "$@"',
    "stat": "exit 1",
    "git is killed in its transaction": (
        'case " $* " in *" update-ref "*) kill -9 $$ ;; esac; exec REAL "$@"'
    ),
}


@pytest.mark.parametrize("failing", FAILING)
def test_a_tool_that_fails_leaves_no_lock_and_no_mark_and_moves_nothing(script: Script, failing: str) -> None:
    seen = script.observe()
    before, head = script.published.git("for-each-ref"), script.published.head()
    tool = failing.partition(",")[0].split()[0]
    script.replace(tool, FAILING[failing])
    status, said, _ = script.ask("apply", script.apply(seen))
    assert status == 1 or (status == 0 and "busy HEAD.lock" in said), said
    assert status == 0 or "\nerror " in f"\n{said}"
    assert script.published.git("for-each-ref") == before
    assert script.left() == []
    if tool in {"mv", "ln", "stat"}:
        assert script.published.head() == head
    script.restore(tool)
    assert script.ask("apply", script.apply(script.observe()))[0] == 0
    assert script.published.tree("staging") == script.published.tree("live")


STALLED = {
    "ln": ('REAL "$@"; touch "{0}"; exec sleep 300', "ln"),
    "mv": ('touch "{0}"; exec sleep 300', "mv"),
    "mv, when it has moved": ('REAL "$@"; touch "{0}"; exec sleep 300', "mv"),
    "git update-ref": (
        'case " $* " in *" update-ref "*) touch "{0}"; exec sleep 300 ;; esac; exec REAL "$@"',
        "git",
    ),
}


def wait_for_the_end(group: int) -> None:
    """Wait until no process of the group lives: a signal is sent before it has taken effect."""

    def living(stat: Path) -> bool:
        try:
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended
            return False
        return int(its_group) == group and state != "Z"

    while any(map(living, Path("/proc").glob("[0-9]*/stat"))):
        time.sleep(0.01)


@pytest.mark.parametrize("killing", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("stalled", STALLED)
def test_what_is_killed_between_is_taken_away_by_the_next_look(
    script: Script, stalled: str, killing: signal.Signals
) -> None:
    seen = script.observe()
    text, tool = STALLED[stalled]
    there = script.folder / "there"
    script.replace(tool, text.format(there))
    with script.start() as process:
        assert process.stdin is not None
        process.stdin.write(request(TOKEN, "apply", [script.apply(seen)]))
        process.stdin.flush()
        script.wait_until(there)
        os.killpg(process.pid, killing)
    wait_for_the_end(process.pid)
    script.restore(tool)
    script.observe()
    assert script.left() == []
    assert script.ask("apply", script.apply(script.observe()))[0] == 0
    assert script.published.tree("staging") == script.published.tree("live")


def test_the_locks_of_one_who_is_still_at_work_stay(dashed: Script) -> None:
    seen = dashed.observe()
    there = dashed.folder / "there"
    dashed.replace("mv", f'touch "{there}"; exec sleep 300')
    with dashed.start() as process:
        assert process.stdin is not None
        process.stdin.write(request(TOKEN, "apply", [dashed.apply(seen)]))
        process.stdin.flush()
        dashed.wait_until(there)
        dashed.restore("mv")
        assert "HEAD.lock" in dashed.observe().locks
        assert "HEAD.lock" in dashed.left()
        os.killpg(process.pid, signal.SIGKILL)


HOOK = """\
#!/bin/sh
[ "$1" = prepared ] || exit 0
kill -9 "$PPID"
"""


def test_the_locks_of_a_git_that_somebody_kills_in_its_transaction_are_taken_away(script: Script) -> None:
    """The shell that started it sees it die, and knows whose locks they are."""
    seen = script.observe()
    hook = script.inside / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o755)
    status, said, _ = script.ask("apply", script.apply(seen))
    assert (status, "error remote-step" in said) == (1, True)
    assert script.left() == []
    hook.unlink()
    assert script.ask("apply", script.apply(script.observe()))[0] == 0


def left_by(script: Script, mark: str, lock: str) -> None:
    """Lay out what a git that was killed in its transaction leaves, and its mark."""
    (script.inside / "sync-staging-own.999999999.1").write_text(mark)
    heads = script.inside / "refs" / "heads"
    (heads / "staging.lock").write_text(lock)
    (heads / "staging_in_progress.lock").touch()


def where() -> str:
    parts = (Path("/proc/sys/kernel/hostname"), Path("/proc/sys/kernel/random/boot_id"))
    return " ".join(part.read_text().strip() for part in parts)


NEW = "a" * 40


@pytest.mark.parametrize(
    ("mark", "lock", "stays"),
    [
        ("where {here}\nprocess 999999998 1\nbranch staging\nnew {new}\n", "{new}\n", False),
        ("where {rebooted}\nprocess 1 1\nbranch staging\nnew {new}\n", "{new}\n", False),
        ("where {here}\nprocess 999999998 1\nbranch staging\nnew {new}\n", "b" * 40 + "\n", True),
        ("where {here}\nprocess 999999998 1\nbranch staging\nnew {new}\n", "", True),
        ("where {here}\nprocess 999999998 1\nbranch qa\nnew {new}\n", "{new}\n", True),
        ("where elsewhere 1-2-3\nprocess 999999998 1\nbranch staging\nnew {new}\n", "{new}\n", True),
        ("", "{new}\n", True),
    ],
    ids=["ours", "before a boot", "another's", "empty", "another branch's", "another host's", "no mark"],
)
def test_a_lock_is_taken_away_only_where_it_is_proven_ours(
    dashed: Script, mark: str, lock: str, *, stays: bool
) -> None:
    rebooted = f"{where().split()[0]} 00000000-0000-0000-0000-000000000000"
    told = {"here": where(), "rebooted": rebooted, "new": NEW}
    left_by(dashed, mark.format(**told), lock.format(**told))
    seen = dashed.observe()
    locks = {"refs/heads/staging.lock", "refs/heads/staging_in_progress.lock"}
    assert set(seen.locks) == (locks if stays else set())
    assert locks & set(dashed.left()) == set(seen.locks)


def test_the_mark_of_another_host_stays_and_keeps_nobody_from_tidying_up(dashed: Script) -> None:
    mark = f"process 999999998 1\nbranch staging\nnew {NEW}\n"
    left_by(dashed, f"where {where()}\n{mark}", f"{NEW}\n")
    other = dashed.inside / "sync-staging-own.12.34"
    other.write_text(f"where elsewhere 1-2-3\n{mark}")
    assert dashed.observe().locks == ()
    assert dashed.left() == [other.name]


def test_an_id_that_is_used_again_is_no_proof_of_life(dashed: Script) -> None:
    mark = f"where {where()}\nprocess {os.getpid()} 1\nbranch staging\nnew {NEW}\n"
    left_by(dashed, mark, f"{NEW}\n")
    assert dashed.observe().locks == ()


TOOLS = ("stat", "date", "awk", "rm", "ln", "mv", "cat", "grep", "touch", "sed")


def test_each_process_that_a_sync_starts_is_needed(dashed: Script) -> None:
    """Nothing on the way to the ref lists paths: that comes after it."""
    log = dashed.folder / "calls"
    dashed.replace(
        "git",
        f"""
        for word; do case $word in *=*|-*) ;; *) break ;; esac; done
        echo "$word" >>"{log}"; exec REAL "$@"
    """,
    )
    for tool in TOOLS:
        dashed.replace(tool, f'echo {tool} >>"{log}"; exec REAL "$@"')

    def calls() -> list[str]:
        said = log.read_text().splitlines()
        log.write_text("")
        # What a shell starts when it is loaded.
        return said[said.index("--version") + 1 :] if "--version" in said else said

    def publish() -> None:
        live = dashed.published.commit("live")
        newer = dashed.published.git("commit-tree", f"{live}~1^{{tree}}", "-p", live, "-m", "x")
        dashed.published.git("update-ref", "refs/heads/live", newer)

    seen = dashed.observe()
    assert calls() == ["for-each-ref", "stat", "merge-base"]
    looked, moved = ["for-each-ref", "commit-tree", "stat"], ["update-ref", "rm", "diff-tree", "awk"]
    assert dashed.ask("apply", dashed.apply(seen, listed="10", room="999"))[0] == 0
    assert sorted(calls()) == sorted([*looked, "ln", "mv", *moved])
    publish()
    seen = dashed.observe()
    assert calls() == ["for-each-ref", "stat"], "no ancestor of live is a commit of ours"
    dashed.ask("apply", dashed.apply(seen, listed="10", room="999"))
    assert sorted(calls()) == sorted([*looked, *moved])
    live = dashed.published.commit("live")
    dashed.published.git("update-ref", "refs/heads/staging", live)
    age(dashed.published, 1000)
    dashed.observe()
    assert calls() == ["for-each-ref", "stat"]
    publish()
    seen = dashed.observe()
    assert calls() == ["for-each-ref", "stat"], "what is live's parent is its ancestor"
    dashed.ask("apply", dashed.apply(seen, "fast-forward", listed="10", room="999"))
    assert sorted(calls()) == sorted(["for-each-ref", "stat", *moved])


def clock_off(script: Script, seconds: int) -> None:
    """Let the host's clock be another than its file system's."""
    script.replace("date", f'exec REAL -d "{seconds} seconds" "$@"')


@pytest.mark.parametrize("off", [-3600, 3600])
def test_a_move_that_is_near_is_measured_by_the_clock_of_the_files(script: Script, off: int) -> None:
    clock_off(script, off)
    age(script.published, 1000)
    (script.inside / "index").touch()
    assert 0 <= script.observe().idle < 60
    age(script.published, 1000)
    seen = script.observe()
    assert seen.idle > 900
    assert not any("clock" in name for name in seen.times)


def test_neither_a_mere_look_nor_one_at_old_times_writes_anything(script: Script) -> None:
    before = {path: path.stat().st_mtime_ns for path in script.inside.rglob("*")}
    script.observe(counting=True)
    age(script.published, 1000)
    script.observe(counting=True)
    script.published.git("update-ref", "refs/heads/staging", "live")
    age(script.published, 1000)
    script.observe()
    now = {path: path.stat().st_mtime_ns for path in script.inside.rglob("*")}
    assert before.keys() == now.keys()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_clock_that_cannot_be_written_is_told_and_the_hosts_own_is_taken(dashed: Script, kind: str) -> None:
    clock, elsewhere = dashed.inside / "sync-staging-clock", dashed.folder / "elsewhere"
    elsewhere.write_text("kept")
    match kind:
        case "link":
            clock.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(clock)
        case _:
            clock.mkdir()
    leg = dashed.environment().legs[0]
    status, said, err = dashed.ask("observe", observe_fields(leg, 10, counting=False))
    assert (status, "can't be written" in err) == (0, True)
    assert read_observation(leg, said).now == pytest.approx(time.time(), abs=60)
    assert elsewhere.read_text() == "kept"
    age(dashed.published, 60)
    status, said, err = dashed.ask("apply", dashed.advance(dashed.observe(), 5.0))
    assert (status, read_applied(leg, said, "").changed, err) == (0, False, ""), (
        "its mark is the clock of a move"
    )


@pytest.mark.parametrize(
    "holds", [b"", b"\0" * 41, b"0" * 40 + b"\n", b"half of it", b"ref: refs/heads/nowhere\n"]
)
@pytest.mark.parametrize("name", ["live", "staging", "staging_in_progress", "live_in_progress"])
def test_a_broken_ref_file_is_told_by_its_name(dashed: Script, name: str, holds: bytes) -> None:
    path = dashed.inside / "refs" / "heads" / name
    path.write_bytes(holds)
    leg = dashed.environment().legs[0]
    status, said, _ = dashed.ask("observe", observe_fields(leg, 10, counting=False))
    assert status == 1
    assert f"error broken-ref the file {path} does not hold a commit\n" in said


@pytest.mark.parametrize("name", ["live", "staging", "live_in_progress"])
def test_a_branch_whose_commit_is_lost_is_told_by_its_name(dashed: Script, name: str) -> None:
    (dashed.inside / "refs" / "heads" / name).write_text(f"{'1' * 40}\n")
    status, error = refused(dashed)
    assert (status, type(error)) == (1, BrokenRefError)
    assert f"{'1' * 40} for refs/heads/{name}" in error.message


@pytest.mark.parametrize(("part", "holds"), [("HEAD", b"garbage\n"), ("objects", None), ("refs", None)])
def test_a_repository_that_git_does_not_take_for_one_is_told_as_that(
    dashed: Script, part: str, holds: bytes | None
) -> None:
    path = dashed.inside / part
    if holds is None:
        shutil.rmtree(path)
    else:
        path.write_bytes(holds)
    status, error = refused(dashed)
    assert (status, type(error)) == (1, NotARepositoryError)
    assert part in error.message


@pytest.mark.parametrize(
    ("name", "said"), [("config", "bad config line 1"), ("packed-refs", "unexpected line")]
)
def test_another_file_of_git_that_is_damaged_is_told_once_in_git_s_own_words(
    dashed: Script, name: str, said: str
) -> None:
    (dashed.inside / name).write_text("[garbage\n")
    _, error = refused(dashed)
    assert error.message.count(said) == 1


def refused(script: Script) -> tuple[int, SyncError]:
    """The status of a look, and its error as a survey has it, which knows no standard error."""
    leg = script.environment().legs[0]
    status, said, _ = script.ask("observe", observe_fields(leg, 10, counting=False))
    return status, error_of(Reply(status, said, ""))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["staging", "staging_in_progress", "live"])
def test_what_jgit_puts_beside_a_lock_is_not_a_broken_branch(dashed: Script, name: str, packed: bool) -> None:
    """It makes a second, empty file for a lock where it can't trust the file system, and git warns of it."""
    dashed.published.commit("live")
    if packed:
        dashed.published.git("pack-refs", "--all")
    beside = dashed.inside / "refs" / "heads" / f"{name}.lock.{'0123456789abcdef' * 2}"
    beside.touch()
    seen = dashed.observe()
    assert (seen.in_progress, seen.locks) == ({}, ())
    assert dashed.ask("apply", dashed.apply(seen))[0] == 0
    assert dashed.published.tree("staging") == dashed.published.tree("live")
    assert beside.exists()


def test_an_empty_folder_of_the_name_of_a_mark_holds_nothing_up(dashed: Script) -> None:
    dashed.published.commit("live")
    (dashed.inside / "refs" / "heads" / "staging_in_progress").mkdir()
    assert dashed.ask("apply", dashed.apply(dashed.observe()))[1].startswith("detached\n")
    assert dashed.published.tree("staging") == dashed.published.tree("live")


def test_a_git_file_in_the_place_of_a_git_directory_is_told(dashed: Script) -> None:
    elsewhere = dashed.inside.rename(dashed.folder / "elsewhere.git")
    (dashed.published.path / ".git").write_text(f"gitdir: {elsewhere}\n")
    status, said, _ = dashed.ask("observe", observe_fields(dashed.environment().legs[0], 10, counting=False))
    assert (status, "not-a-repository" in said, "has a .git file" in said) == (1, True, True)


def test_branches_that_name_tags_are_compared_by_what_they_point_to(dashed: Script) -> None:
    heads = dashed.inside / "refs" / "heads"
    dashed.published.git("tag", "-a", "-m", "x", "within", "live")
    dashed.published.git("tag", "-a", "-m", "x", "of-live", "within")
    (heads / "live").write_text(dashed.published.git("rev-parse", "refs/tags/of-live") + "\n")
    live = dashed.published.git("rev-parse", "live^{commit}")
    dashed.published.git("tag", "-a", "-m", "x", "of-staging", "staging")
    (heads / "staging").write_text(dashed.published.git("rev-parse", "refs/tags/of-staging") + "\n")
    seen = dashed.observe()
    assert seen.live is not None
    assert seen.live.commit == live
    assert dashed.ask("apply", dashed.apply(seen))[0] == 0
    assert dashed.published.tree("staging") == dashed.published.tree("live")
    assert dashed.published.git("cat-file", "-t", "refs/heads/staging") == "commit"
    assert dashed.observe().drift.removed.count == 0


HEADS = ("ref:refs/heads/staging", "ref: \t refs/heads/staging \t\r\n", "ref: refs/heads/staging", None)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_was_written_by_hand_is_detached_too(script: Script, head: str | None) -> None:
    path = script.inside / "HEAD"
    path.unlink()
    if head is None:
        path.symlink_to("refs/heads/staging")
    else:
        path.write_text(head)
    assert script.published.is_clean()
    seen = script.observe()
    assert seen.head == "ref: refs/heads/staging"
    status, said, _ = script.ask("apply", script.apply(seen))
    assert (status, said[:9]) == (0, "detached\n")
    assert script.published.is_clean()
    assert not path.is_symlink()


def test_a_repository_whose_git_directory_is_reached_by_a_link_is_its_own(script: Script) -> None:
    elsewhere = script.folder / "store" / "mysite.git"
    elsewhere.parent.mkdir()
    script.inside.rename(elsewhere)
    script.inside.symlink_to(elsewhere)
    seen = script.observe()
    assert seen.branch is not None
    assert seen.branch.worktree == seen.worktree
    status, said, _ = script.ask("apply", script.apply(seen))
    assert (status, said[:9]) == (0, "detached\n")
    assert script.published.is_clean()


def test_a_list_of_paths_is_bounded_by_what_a_reply_may_hold(script: Script) -> None:
    long = "x" * 200
    for number in range(20):
        (script.published.path / f"{number:02}{long}").write_text("x")
    script.published.git("add", "--all")
    script.published.git("commit", "--quiet", "-m", "many")
    leg = script.environment().legs[0]
    _, said, _ = script.ask("observe", observe_fields(leg, 1000, room=1000, counting=True))
    removed = read_observation(leg, said).drift.removed
    assert removed.count == 21
    assert 0 < len(removed.listed) < 6


def test_a_commit_of_before_1973_can_be_made(script: Script) -> None:
    for date in ("0", "1", "99999999"):
        old = script.published.commit("staging")
        assert script.ask("apply", script.apply(script.observe(), date=date))[0] == 0
        assert script.published.git("log", "-1", "--format=%ct %at", "staging") == f"{date} {date}"
        script.published.git("update-ref", "refs/heads/staging", old)


def commit_on(published: Published, *parents: str, name: str, email: str = "editor@example.com") -> str:
    """Make a commit with a tree of its own."""
    blob = published.git("hash-object", "-w", "--stdin", stdin=name.encode())
    tree = published.git("mktree", stdin=f"100644 blob {blob}\t{name}\n".encode())
    words = [word for parent in parents for word in ("-p", parent)]
    who = ("-c", f"user.email={email}", "-c", "user.name=x")
    return published.git(*who, "commit-tree", tree, *words, "-m", name)


TIPS = ("equal", "a parent", "a grandparent", "a child", "ours", "another's", "alone")
"""What the branch is to live."""


def lay_out(published: Published, tip: str) -> None:
    """Put live, and the branch as it is to live, where HEAD is detached."""
    first = commit_on(published, name="first")
    second = commit_on(published, first, name="second")
    live = commit_on(published, second, name="third")
    commit = {
        "equal": live,
        "a parent": second,
        "a grandparent": first,
        "a child": commit_on(published, live, name="child"),
        "ours": commit_on(published, second, name="ours", email=COMMITTER_EMAIL),
        "another's": commit_on(published, second, name="another's"),
        "alone": commit_on(published, name="alone"),
    }[tip]
    published.git("update-ref", "refs/heads/live", live)
    published.git("update-ref", "refs/heads/staging", commit)


DISTURBED: dict[str, Callable[[Script], object]] = {
    "nothing": str,
    "live has gone on": lambda script: script.published.git(
        "update-ref", "refs/heads/live", commit_on(script.published, "live", name="fourth")
    ),
    "live is gone": lambda script: script.published.git("update-ref", "-d", "refs/heads/live"),
    "the index is young": lambda script: (script.inside / "index").touch(),
    "HEAD's reflog is of the future": lambda script: set_to(script.inside / "logs" / "HEAD", 60),
    "the index is just not quiet": lambda script: set_to(script.inside / "index", 0.2 - 5),
    "the branch's mark": lambda script: script.published.git("branch", "staging_in_progress", "staging"),
    "live's mark": lambda script: script.published.git("branch", "live_in_progress", "live"),
    "an old mark": lambda script: old(script, "refs/heads/staging_in_progress"),
    "an old lock": lambda script: old(script, "index.lock"),
    "HEAD": lambda script: script.published.git("symbolic-ref", "HEAD", "refs/heads/live"),
    "the branch": lambda script: script.published.git(
        "update-ref", "refs/heads/staging", commit_on(script.published, "staging", name="staged")
    ),
    "the branch is symbolic": lambda script: script.published.git(
        "symbolic-ref", "refs/heads/staging", "refs/heads/live"
    ),
}


def set_to(path: Path, ahead: float) -> None:
    then = time.time() + ahead
    os.utime(path, (then, then))


def old(script: Script, name: str) -> None:
    """Leave what a publish that crashed a day ago would have left."""
    (script.inside / name).write_text(f"{script.published.commit('live')}\n")
    set_to(script.inside / name, -86_400)


@pytest.mark.parametrize("disturbed", DISTURBED)
def test_what_a_host_does_without_a_look_is_what_is_decided_by_what_it_saw(
    dashed: Script, disturbed: str
) -> None:
    leg, quiet = dashed.environment().legs[0], 5.0
    dashed.published.git("checkout", "--quiet", "--detach")
    for tip in TIPS:
        lay_out(dashed.published, tip)
        age(dashed.published, 60)
        seen = dashed.observe()
        DISTURBED[disturbed](dashed)
        before = dashed.published.git("for-each-ref")
        status, said, _ = dashed.ask("apply", dashed.advance(seen, quiet))
        assert status == 0, said
        done = read_applied(leg, said, "")
        assert done.seen is not None
        plan = decide(leg, done.seen, quiet=quiet, patience=900)
        if done.kind is None:
            assert dashed.published.git("for-each-ref") == before
            assert tip == "equal" or disturbed not in {"nothing", "live has gone on"}
        else:
            assert (plan.kind, plan.stale) == (done.kind, {}), (tip, disturbed)
            assert done.branch is not None
            assert done.branch.commit == dashed.published.commit("staging")
            assert dashed.published.tree("staging") == dashed.published.tree("live")
            again = dashed.observe()
            assert (done.left and done.left.standing, done.live) == (again.standing, again.live)
        for lock in ("index.lock", "refs/heads/staging_in_progress", "refs/heads/live_in_progress"):
            (dashed.inside / lock).unlink(missing_ok=True)
        if disturbed == "HEAD":
            dashed.published.git("checkout", "--quiet", "--force", "--detach")
        if disturbed == "the branch is symbolic":
            dashed.published.git("symbolic-ref", "--delete", "refs/heads/staging")


def test_a_host_in_doubt_about_a_time_does_not_move(script: Script) -> None:
    """Times around the limit: where the host finds all to be quiet, so does the decision."""
    leg = script.environment().legs[0]
    script.published.git("checkout", "--quiet", "--detach")
    age(script.published, 60)
    seen = script.observe()
    moved = 0
    for step in range(12):
        old_tip = script.published.commit("staging")
        set_to(script.inside / "index", -5 + step * 0.03 - 0.2)
        done = read_applied(leg, script.ask("apply", script.advance(seen, 5.0))[1], "")
        assert done.seen is not None
        plan = decide(leg, done.seen, quiet=5.0, patience=900)
        assert done.kind in {None, plan.kind}
        moved += done.kind is not None
        script.published.git("update-ref", "refs/heads/staging", old_tip)
    assert moved


BETWEEN = {
    "HEAD comes to the branch": "REAL symbolic-ref HEAD refs/heads/staging",
    "a publish into the branch begins": "REAL update-ref refs/heads/staging_in_progress refs/heads/live",
    "a publish into live begins": "REAL update-ref refs/heads/live_in_progress refs/heads/live",
    "the branch moves": "REAL update-ref refs/heads/staging refs/heads/live",
    "the index is locked": ": >index.lock",
}
"""What may happen while the commit is made, and leaves no young time behind."""


@pytest.mark.parametrize("between", BETWEEN)
def test_what_happens_between_the_look_and_the_move_of_one_request_stops_it(
    dashed: Script, between: str
) -> None:
    dashed.published.git("checkout", "--quiet", "--detach")
    age(dashed.published, 60)
    seen = dashed.observe()
    before = dashed.published.commit("staging")
    dashed.replace("git", f'case " $* " in *" commit-tree "*) {BETWEEN[between]} ;; esac; exec REAL "$@"')
    status, said, _ = dashed.ask("apply", dashed.advance(seen, 0))
    assert status == 0, said
    done = read_applied(dashed.environment().legs[0], said, "")
    assert (done.changed, done.kind) == (True, None)
    moved = between == "the branch moves"
    assert dashed.published.commit("staging") == (dashed.published.commit("live") if moved else before)
    assert [name for name in dashed.left() if name != "index.lock"] == []


def prepared(script: Script) -> "tuple[subprocess.Popen[bytes], str]":
    """A request to move that waits for its word, and the branch's commit before it."""
    script.published.git("checkout", "--quiet", "--detach")
    age(script.published, 60)
    seen, before = script.observe(), script.published.commit("staging")
    script.replace("git", 'REAL "$@" || exit; case " $* " in *" commit-tree "*) : >made ;; esac')
    process = script.start()
    assert process.stdin is not None
    process.stdin.write(request(TOKEN, "apply", [script.advance(seen, 5.0)], go=False))
    process.stdin.flush()
    script.wait_until(script.inside / "made")
    return process, before


WORDS = {
    "stop": (go_or_stop(TOKEN, may_move=False), 0),
    "the end of the connection": (b"", 0),
    "the word of another request": (go_or_stop("1" * 32, may_move=True), 64),
    "another word": (f"{TOKEN} gone\n".encode(), 64),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_request_moves_nothing_before_its_word_and_nothing_by_another_one(
    script: Script, word: str
) -> None:
    process, before = prepared(script)
    said, status = WORDS[word]
    out, _ = process.communicate(said, timeout=60)
    assert f"\n{TOKEN} {status}\n".encode() in out
    if not status:
        done = answer_of(script, out)
        assert (done.kind, done.seen is not None) == (None, True)
    assert script.published.commit("staging") == before
    assert script.left() == []


def answer_of(script: Script, out: bytes) -> Applied:
    said = out.decode().partition(f"\n{NAME} 0\n")[2].partition(f"\n{TOKEN} ")[0]
    return read_applied(script.environment().legs[0], said, "")


TOUCHED: dict[str, Callable[[Script], object]] = {
    "nothing": lambda _: None,
    "the index": lambda script: (script.inside / "index").touch(),
    "HEAD's reflog": lambda script: script.published.git("checkout", "--quiet", "--detach", "live"),
    "a lock": lambda script: (script.inside / "index.lock").touch(),
    "a publish": lambda script: script.published.git("update-ref", "refs/heads/live_in_progress", "live"),
    "HEAD": lambda script: (script.inside / "HEAD").write_text("ref: refs/heads/staging\n"),
    "the branch": lambda script: script.published.git("update-ref", "refs/heads/staging", "live"),
}


@pytest.mark.parametrize("touched", TOUCHED)
def test_who_touches_the_repository_before_the_word_stops_the_move(script: Script, touched: str) -> None:
    process, _ = prepared(script)
    script.restore("git")
    TOUCHED[touched](script)
    before = script.published.commit("staging")
    out, _ = process.communicate(go_or_stop(TOKEN, may_move=True), timeout=60)
    moved = touched == "nothing"
    assert (answer_of(script, out).kind is not None) == moved
    assert (script.published.commit("staging") != before) == moved
    assert [name for name in script.left() if name != "index.lock"] == []


def test_a_word_that_comes_after_its_request_has_ended_is_no_request(script: Script) -> None:
    told = request(TOKEN, "apply", [{"path": "/nowhere"}]) + request("1" * 32, "hello", [{}])
    with script.start() as process:
        out, _ = process.communicate(told, timeout=60)
    assert f"\n{TOKEN} 1\n".encode() in out
    assert f"\n{'1' * 32} 0\n".encode() in out


@pytest.mark.parametrize("tip", ["a grandparent", "another's"])
def test_a_look_recognises_what_an_earlier_request_of_its_run_has_moved_and_lists_it(
    script: Script, tip: str
) -> None:
    script.published.git("checkout", "--quiet", "--detach")
    lay_out(script.published, tip)
    age(script.published, 60)
    leg, old = script.environment().legs[0], script.published.commit("staging")
    assert script.ask("apply", script.advance(script.observe(), 5.0))[0] == 0

    def looked(run: str, since: str) -> Observation:
        fields = {**observe_fields(leg, 10, counting=False), "since": since, "run": run}
        status, said, _ = script.ask("observe", fields)
        assert status == 0, said
        return read_observation(leg, said, counting=False)

    seen = looked("run-1", old)
    assert (seen.recognised, seen.foreign, seen.listed) == (True, False, False)
    assert seen.moved is not None
    assert (seen.moved.added.listed, seen.moved.removed.count) == (("third",), 1)
    other = looked("run-2", old)
    assert (other.recognised, other.foreign) == (False, True)
    (Path(script.published.path) / ".git" / "logs" / "refs" / "heads" / "staging").unlink()
    other = looked("run-2", old)
    assert (other.recognised, other.foreign) == (False, False)
    still = looked("run-1", script.published.commit("staging"))
    assert (still.recognised, still.moved) == (False, Drift())
