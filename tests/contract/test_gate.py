"""The gate by itself, in each shell: whatever it is told, it runs nothing, and moves only what it may."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from listener.observations import COMMITTER_EMAIL, COMMITTER_NAME
from listener.rehearsal.git import ENVIRONMENT
from listener.rehearsal.published import Published
from listener.ssh.dialogue import DIGEST, Fields, request
from listener.ssh.service import command_of
from tests import figures
from tests.conftest import unavailable
from tests.gate import install
from tests.ways import others, refs_of

SHELLS = {"dash": "dash", "bash": "bash --posix", "busybox": "busybox sh"}
NAME = "sync-staging-0123456789abcdef"
TOKEN = "0123456789abcdef"

MANY = int(os.environ.get("SYNC_STAGING_HISTORIES", "0"))


@dataclass(frozen=True)
class Gate:
    """The script on a host, for what lies in `root`; everything that it must not touch lies beside it."""

    shell: str
    script: Path
    root: Path
    outside: Published
    inside: Published
    canary: Path

    def run(self, command: str, said: bytes = b"", *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.shell.split(), str(self.script), *words, str(self.root)],
            input=said,
            cwd=self.root,
            env={"PATH": os.environ["PATH"], "SSH_ORIGINAL_COMMAND": command, **ENVIRONMENT},
            capture_output=True,
            check=False,
            timeout=30,
        )

    def ask(self, verb: str, *parts: Fields, words: tuple[str, ...] = ()) -> str:
        """What it answers to one request, after its greeting."""
        said = request(TOKEN, verb, parts)
        done = self.run(f"sync-staging-dialogue {DIGEST} {NAME}", said, *words)
        return done.stdout.decode("utf-8", "replace").partition(f"\n{NAME} 0\n")[2]


def shell_of(program: str) -> str:
    if shutil.which(program) is None:
        unavailable(program)
    return SHELLS[program]


@pytest.fixture
def gate(request: pytest.FixtureRequest, pristine: Published, tmp_path: Path) -> Gate:
    return gate_in(tmp_path, shell_of(getattr(request, "param", "dash")), pristine)


def gate_in(folder: Path, shell: str, pristine: Published) -> Gate:
    inside, outside = (Published(folder / name) for name in ("a root/inside", "outside"))
    for published in (inside, outside):
        shutil.copytree(pristine.path, published.path, symlinks=True)
    return Gate(shell, install(folder / "bin"), inside.path.parent, outside, inside, folder / "canary")


def observed(path: Path | str, branch: str = "staging", live: str = "live") -> Fields:
    return {
        "path": str(path), "live": live, "branch": branch, "compare": "tree", "listed": "10",
        "room": "9999", "counting": "no"
    }  # fmt: skip


def applied(gate: Gate, **changes: str) -> Fields:
    """A request that moves staging to live if nothing else is said."""
    question = observed(gate.inside.path, live=changes.get("live", "live"))
    seen = gate.ask("observe", question).partition("\nhead ")[2].partition("\nseen\n")[0]
    whole = {
        **observed(gate.inside.path),
        "seen": f"head {seen}",
        "kind": "reset",
        "run": "run-1",
        "date": "1700000000",
        "subject": "subject",
        "body": "body",
    }
    return {**whole, **changes}


def sites(root: Path | str, before: str = "", after: str = "", rest: str = "") -> Fields:
    return {"root": str(root), "before": before, "after": after, "rest": rest}


in_every_shell = pytest.mark.parametrize("gate", SHELLS, indirect=True)


@in_every_shell
def test_a_request_is_answered_as_by_the_script_that_is_sent(gate: Gate) -> None:
    assert gate.ask("hello").startswith("hello ")
    assert "\nD\tsite/website/staged-for-review/index.xml\n" in gate.ask(
        "observe", {**observed(gate.inside.path), "counting": "yes"}
    )
    live = gate.inside.commit("live")
    assert "moved reset\n" in gate.ask("apply", applied(gate))
    assert gate.inside.commit("staging") == live
    assert "site inside\n" in gate.ask("sites", sites(gate.root))


@in_every_shell
def test_arguments_arrive_to_the_letter(gate: Gate) -> None:
    body = "  two\n\n+lines\n.\n=\n\\n $(touch x) `id` 'one' \"two\" * ä \t"
    gate.ask("apply", applied(gate, kind="forward-commit", subject="-n \\c", body=body))
    assert gate.inside.git("log", "-1", "--format=%B", "staging") == f"-n \\c\n\n{body}\n"


@in_every_shell
def test_a_script_of_another_version_says_so(gate: Gate) -> None:
    done = gate.run(f"sync-staging-dialogue {'0' * 16} {NAME}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error script-outdated ")


LEADING_OUT = (
    "outside",
    "../outside",
    "a root/../outside",
    "a root/./inside",
    "a root//inside",
    "a root/out",
)


@in_every_shell
def test_no_path_leads_out_of_the_folders_of_a_key(gate: Gate) -> None:
    beside = gate.root.parent
    (gate.root / "out").symlink_to(gate.outside.path)
    (gate.root / "inner").mkdir()
    (gate.root / "inner" / ".git").symlink_to(gate.outside.path / ".git")
    shutil.copytree(gate.inside.path, gate.root / "borrowed", symlinks=True)
    shutil.rmtree(gate.root / "borrowed" / ".git" / "refs")
    (gate.root / "borrowed" / ".git" / "refs").symlink_to(gate.outside.path / ".git" / "refs")
    paths = [f"{beside}/{path}" for path in (*LEADING_OUT, "a root/inner", "a root/borrowed")]
    paths += [
        f"{gate.inside.path}{end}" for end in ("/..", "/../../outside", "\n", "/%2e%2e/%2e%2e/outside\r")
    ]
    paths += ["", ".", "inside", "~", "-", "/", "/etc", f"{gate.root}x"]
    before = refs_of(gate.outside)
    for path in paths:
        asked = {"observe": observed(path), "apply": applied(gate, path=path)}
        asked["expire"] = {"path": path, "branch": "staging", "before": "zzz"}
        for verb, fields in asked.items():
            assert "\nerror beyond-key " in "\n" + gate.ask(verb, fields), path
        for service in ("git-upload-pack", "git-receive-pack"):
            done = gate.run(f"{service} '{path}'", b"0000")
            assert (done.returncode, done.stdout) == (1, b""), path
            assert done.stderr.startswith(b"error beyond-key "), path
    assert "\nerror beyond-key " in "\n" + gate.ask("sites", sites(beside))
    assert refs_of(gate.outside) == before
    figures.tell(f"paths out of a key's folders, {gate.shell}", tried=len(paths) * 5)


@in_every_shell
def test_no_pattern_of_sites_tells_what_lies_above_a_key_s_folder(gate: Gate) -> None:
    for before, after in (("..", ""), (".", "."), ("", ".."), (".", "")):
        assert gate.ask("sites", sites(gate.root, before, after, "/outside")) == f"\n{TOKEN} 0\n"


@in_every_shell
def test_a_repository_that_keeps_its_refs_elsewhere_is_no_way_out(gate: Gate) -> None:
    for name in ("common", "heads"):
        shutil.copytree(gate.inside.path, gate.root / name, symlinks=True)
    (gate.root / "common" / ".git" / "commondir").write_text(f"{gate.outside.path}/.git\n")
    heads = gate.root / "heads" / ".git" / "refs" / "heads"
    shutil.rmtree(heads)
    heads.symlink_to(gate.outside.path / ".git" / "refs" / "heads")
    before = refs_of(gate.outside)
    for name in ("common", "heads"):
        path = str(gate.root / name)
        for verb, fields in {"observe": observed(path), "apply": applied(gate, path=path)}.items():
            assert "\nerror beyond-key " in "\n" + gate.ask(verb, fields), name
        for service in ("git-upload-pack", "git-receive-pack"):
            assert gate.run(f"{service} '{path}'", b"0000").stderr.startswith(b"error beyond-key "), name
    assert refs_of(gate.outside) == before


@in_every_shell
def test_a_repository_s_path_may_have_quotes(gate: Gate) -> None:
    path = gate.root / "it's 'one'!"
    shutil.copytree(gate.inside.path, path, symlinks=True)
    for service in ("git-upload-pack", "git-receive-pack"):
        done = gate.run(command_of(service, str(path)), b"0000")
        assert (done.returncode, done.stderr) == (0, b"")
        done = gate.run(f"{service} '{path}'", b"0000")
        assert done.stderr.startswith(b"error restricted-key ")


@in_every_shell
def test_only_a_shell_whose_whole_name_is_known_is_ended(gate: Gate) -> None:
    name = "sync-staging-" + "ab" * 8
    with subprocess.Popen(
        ["sleep", "300"], start_new_session=True, env={"X": f"{name} sync-staging-d"}
    ) as one:
        for part in (
            "sync-staging-",
            "sync-staging-a",
            "sync-staging-d",
            name[:-1],
            f"{name}0",
            name.upper(),
        ):
            assert gate.run(f"sync-staging-end {one.pid} {part}").returncode == 1, part
        assert gate.run(f"sync-staging-end {one.pid} {NAME}").returncode == 0
        assert one.poll() is None
        assert gate.run(f"sync-staging-end {one.pid} {name}").returncode == 0
        assert one.wait() == -signal.SIGTERM


def test_a_folder_may_itself_be_reached_by_a_symbolic_link(gate: Gate) -> None:
    gate.root.rename(gate.root.parent / "moved")
    gate.root.symlink_to(gate.root.parent / "moved")
    assert "\nseen\n" in gate.ask("observe", observed(gate.inside.path))


FORBIDDEN: tuple[dict[str, str], ...] = (
    {"branch": "live"},
    {"branch": "live", "live": ""},
    {"branch": "live", "live": "master"},
    {"branch": "staging", "live": "staging"},
    {"branch": "staging_in_progress"},
    {"branch": "live_in_progress", "live": ""},
    *({"branch": name} for name in ("", "-d", "../live", "x/../live", "a b", "a\nb", "a\tb", "a..b", "@")),
    *(
        {"branch": name}
        for name in ("/x", "x/", "x//y", ".x", "x/.y", "x.lock", "a~1", "a^", "a:b", "a*", "a[b")
    ),
    {"to": "live"},
    {"to": "0" * 39},
    {"to": "--help"},
    {"to": f"{'0' * 40}\ndelete refs/heads/live"},
    {"stale": "x"},
    {"stale": f"{'0' * 40}\ndelete refs/heads/live"},
    {"backup": "refs/heads/live"},
    {"backup": "refs/sync-staging/backup/staging/../../../heads/live"},
    {"backup": "refs/sync-staging/backup/staging/x\ndelete refs/heads/live"},
    {"backup": "refs/sync-staging/backup/qa/x"},
    {"incoming": "refs/heads/live"},
    {"incoming": "refs/sync-staging/incoming/qa"},
    {"kind": "delete"},
    {"run": "x y"},
    {"run": "--stdin"},
    {"date": "now"},
    {"date": "1700000000 +0000\n"},
)


@in_every_shell
def test_nothing_is_moved_but_what_the_key_may_move(gate: Gate) -> None:
    before = refs_of(gate.inside)
    lives = {changes.get("live", "live") for changes in FORBIDDEN}
    asked = {live: applied(gate, live=live) for live in lives}
    for changes in FORBIDDEN:
        wrong = {**asked[changes.get("live", "live")], **changes}
        assert "\nerror beyond-key " in "\n" + gate.ask("apply", wrong), changes
    assert refs_of(gate.inside) == before
    figures.tell(f"moves beyond a key, {gate.shell}", tried=len(FORBIDDEN))


@in_every_shell
def test_a_branch_that_may_be_moved_is_never_deleted(gate: Gate) -> None:
    before = refs_of(gate.inside)
    for target in ({"to": "0" * 40}, {"live": ""}, {"live": "nowhere"}):
        for kind in ("create", "fast-forward", "reset"):
            said = gate.ask("apply", applied(gate, **target, kind=kind))
            assert said.startswith("error remote-step there is no commit to move staging to\n"), target
    assert refs_of(gate.inside) == before


def test_a_key_may_be_bound_to_some_branches(gate: Gate) -> None:
    before = refs_of(gate.inside)
    for words in (
        ("--branch", "qa"),
        ("--protect", "staging"),
        ("--branch", "staging", "--protect", "staging"),
    ):
        assert "error beyond-key the branch staging " in gate.ask("apply", applied(gate), words=words)
    assert refs_of(gate.inside) == before
    assert "\nmoved " in "\n" + gate.ask(
        "apply", applied(gate), words=("--protect", "qa", "--branch", "staging")
    )


@pytest.mark.parametrize("words", [("relative",), ("--branch",), ("--branch", "a b"), ("--all",), ("/",)])
def test_a_line_that_binds_to_nothing_in_particular_is_refused(gate: Gate, words: tuple[str, ...]) -> None:
    done = gate.run(f"sync-staging-dialogue {DIGEST} {NAME}", b"", *words)
    assert done.stderr.startswith(b"error beyond-key the key's line in authorized_keys")
    assert done.returncode == 1


def test_a_survey_refuses_one_and_answers_the_others(gate: Gate) -> None:
    questions = [{**observed(each.path), "separator": "abcdef"} for each in (gate.outside, gate.inside)]
    first, second, _ = gate.ask("survey", *questions).split("\nabcdef ", 2)
    assert first.startswith("error beyond-key ")
    assert "\nseen\n" in second


VERBS = ("hello", "observe", "survey", "expire", "sites", "apply", "eval", "ss_move", "key_service")

FIELDS = (
    "path", "root", "live", "branch", "compare", "listed", "room", "counting", "target", "since", "seen",
    "quiet", "kind", "to", "stale", "backup", "incoming", "run", "date", "subject", "body", "before", "after",
    "rest", "one", "separator", "key_folders", "ss_email", "PATH",
)  # fmt: skip


@in_every_shell
def test_a_request_with_a_field_that_its_verb_does_not_take_ends_the_dialogue(gate: Gate) -> None:
    before = refs_of(gate.inside)
    for extra in ("key_folders", "ss_email", "PATH", "GIT_DIR", "text", "before", "path root", "", "x y"):
        said = request(TOKEN, "apply", [{**applied(gate), extra: "/"}]) + request(TOKEN, "hello", [{}])
        done = gate.run(f"sync-staging-dialogue {DIGEST} {NAME}", said)
        assert done.returncode == 64, extra
        assert done.stdout.endswith(f"\n{TOKEN} 64\n".encode()), extra
        assert b"\nerror remote-step a request has " in done.stdout, extra
    assert refs_of(gate.inside) == before


@in_every_shell
def test_a_request_that_is_cut_off_or_out_of_order_ends_the_dialogue(gate: Gate) -> None:
    whole = request(TOKEN, "apply", [applied(gate)])
    before = refs_of(gate.inside)
    broken = (whole[:-2], whole.replace(b"kind=", b"kind"), whole.replace(b".\n", b",\n.\n"), b"\n" + whole)
    for said in broken:
        done = gate.run(f"sync-staging-dialogue {DIGEST} {NAME}", said)
        assert done.returncode == 64, said
    assert refs_of(gate.inside) == before


@dataclass
class Attacked:
    """A gate, what it may be told, and what must be there unchanged after that."""

    gate: Gate
    requests: st.SearchStrategy[bytes]
    commands: st.SearchStrategy[str]
    before: object
    tried: int = 0


@pytest.fixture(scope="module", params=SHELLS)
def attacked(
    request: pytest.FixtureRequest, pristine: Published, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    gate = gate_in(tmp_path_factory.mktemp("attacked"), shell_of(request.param), pristine)
    opened = st.just(f"sync-staging-dialogue {DIGEST} {NAME}")
    poisons = poison(gate)
    commands = st.one_of(opened, opened, opened, opened, poisons.filter(lambda text: "\0" not in text))
    attack = Attacked(gate, requests(poisons), commands, untouched(gate))
    yield attack
    figures.tell(f"garbage to the gate, {gate.shell}", tried=attack.tried)


def poison(gate: Gate) -> st.SearchStrategy[str]:
    """Texts that would run, write or read something if anything evaluated them."""
    deed = f"touch {gate.canary}"
    known = (
        *(
            text.format(deed)
            for text in ("$({})", "`{}`", "; {}", "'; {}; '", '"; {}; "', "\n{}\n", "| {}", "&& {}")
        ),
        *(
            text.format(deed)
            for text in ("}}; {}; {{", "x[$({})]", "--upload-pack={}", "-c core.sshCommand={}")
        ),
        *(
            f"--output={gate.canary}",
            f"> {gate.canary}",
            str(gate.canary),
            str(gate.outside.path),
            "../outside",
        ),
        *(
            str(gate.inside.path),
            str(gate.root),
            "",
            "live",
            "staging",
            "tree",
            "commit",
            "yes",
            "no",
            "10",
            "reset",
        ),
        *("fast-forward", "0" * 40, gate.inside.commit("live"), COMMITTER_NAME, COMMITTER_EMAIL, "run-1"),
    )
    return st.one_of(st.sampled_from(known), st.text(max_size=20))


def requests(poisons: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    fields = st.dictionaries(st.one_of(st.sampled_from(FIELDS), poisons), poisons, max_size=14)
    asked = st.builds(
        lambda verb, parts: request(TOKEN, verb, parts),
        st.one_of(st.sampled_from(VERBS), poisons),
        st.lists(fields, min_size=1, max_size=3),
    )
    return st.one_of(asked, st.binary(max_size=200), poisons.map(lambda text: text.encode() + b"\n"))


@settings(
    max_examples=MANY or 40,
    derandomize=not MANY,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_whatever_the_gate_is_told_runs_nothing_and_changes_nothing_that_it_must_not(
    attacked: Attacked, data: st.DataObject
) -> None:
    said = b"".join(data.draw(st.lists(attacked.requests, min_size=1, max_size=4)))
    attacked.gate.run(data.draw(attacked.commands), said)
    attacked.tried += 1
    assert untouched(attacked.gate) == attacked.before


def untouched(gate: Gate) -> object:
    """What no request may change: every file but those of the repository inside, and its other refs."""
    files = gate.root.parent.rglob("*")
    metadata = gate.inside.path / ".git"
    beside = {file: file.lstat().st_mtime_ns for file in files if metadata not in (file, *file.parents)}
    return beside, others(refs_of(gate.inside)), (metadata / "config").read_bytes()


def test_the_scripts_are_free_of_what_shellcheck_finds(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        unavailable("shellcheck")
    found = subprocess.run(
        ["shellcheck", "--shell=sh", str(install(tmp_path))], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")
