"""How `doctor` judges what can't be broken on a machine that runs tests, and what it prints."""

import os
import re
from pathlib import Path

import pytest

from listener.cli.doctor import process, storage
from listener.cli.doctor.findings import CLOCK_TOLERANCE, SHOWN, Finding, Group, Level, clock, lines
from listener.cli.doctor.service import Unit, findings

ROOT = Path(__file__).parents[2]
GIB = 1 << 30


def filesystem(free: int, size: int, *, flags: int = 0, inodes: int = 100) -> os.statvfs_result:
    """What statvfs says about a file system, in blocks of one byte."""
    return os.statvfs_result((1, 1, size, free, free, 1000, inodes, inodes, flags, 255))


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (filesystem(50 * GIB, 100 * GIB), "ok"),
        (filesystem(GIB // 2, 10 * GIB), "ok"),
        (filesystem(GIB // 2, 100 * GIB), "disk-low"),
        (filesystem(1 << 20, 100 * GIB), "disk-full"),
        (filesystem(50 * GIB, 100 * GIB, inodes=0), "disk-full"),
        (filesystem(50 * GIB, 100 * GIB, flags=os.ST_RDONLY), "disk-read-only"),
    ],
)
def test_the_room_of_a_disk_is_judged(found: os.statvfs_result, code: str) -> None:
    assert storage.room("store", found).code == code


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("ext4", []),
        ("overlay", []),
        ("nfs4", ["store-on-network"]),
        ("cifs", ["store-on-network"]),
        ("fuse.sshfs", ["store-on-network"]),
        ("tmpfs", ["store-in-memory"]),
    ],
)
def test_sqlite_belongs_on_a_local_disk(kind: str, codes: list[str]) -> None:
    assert [finding.code for finding in storage.suited("store", kind)] == codes


def test_the_file_system_of_a_folder_is_the_innermost_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced = tmp_path / "a b"
    spaced.mkdir()
    mounts = tmp_path / "mounts"
    escaped = str(spaced).replace(" ", "\\040")
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n")
    monkeypatch.setattr(storage, "MOUNTS", mounts)
    assert (storage.kind_of(tmp_path), storage.kind_of(spaced)) == ("ext4", "nfs4")
    monkeypatch.setattr(storage, "MOUNTS", tmp_path / "nowhere")
    assert storage.kind_of(tmp_path) == ""


@pytest.mark.parametrize(
    ("ahead", "said"),
    [(0.0, "equal"), (CLOCK_TOLERANCE, "equal"), (60.0, "60 s ahead of"), (-60.0, "60 s behind")],
)
def test_a_clock_may_differ_a_little(ahead: float, said: str) -> None:
    assert said in clock("host studio", ahead).message


def test_a_listener_of_another_version_is_told() -> None:
    assert [finding.code for finding in process.compared("0.0.1")] == ["version-differs"]


def test_a_process_that_is_gone_has_no_start() -> None:
    assert process.started(1 << 30) is None
    ours = process.started(os.getpid())
    assert ours is not None


def test_a_unit_that_runs_as_root_is_told() -> None:
    said = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "User": ""}
    said |= {"WatchdogUSec": "30s", "MemoryMax": "1", "LimitNOFILE": "8192", "Restart": "always"}
    assert [finding.code for finding in findings(Unit("x.service", said))] == ["service-user"]


def test_findings_of_one_kind_are_counted_beyond_the_first_few() -> None:
    many = [
        Finding.problem(Group.REPOSITORIES, f"site {number}", "read-only", "no")
        for number in range(SHOWN + 3)
    ]
    said = list(lines(many, verbose=False))
    assert len(said) == SHOWN + 3
    assert said[0] == f"repositories: {SHOWN + 3} problems"
    assert said[-2:] == [
        "  problem: 3 more [read-only]; --verbose lists them",
        f"found: {SHOWN + 3} problems",
    ]
    assert len(list(lines(many, verbose=True))) == SHOWN + 5


def test_a_remedy_that_several_have_in_a_row_comes_once() -> None:
    same = [Finding.problem(Group.STORE, what, "bad", "broken", "mend it") for what in "ab"]
    assert list(lines(same, verbose=False))[1:4] == [
        "  problem: a: broken [bad]",
        "  problem: b: broken [bad]",
        "    remedy: mend it",
    ]


def test_problems_are_printed_before_warnings_and_good_things_in_a_line() -> None:
    said = list(
        lines(
            [
                Finding.warning(Group.STORE, "b", "bad", "worse", "mend it"),
                Finding.problem(Group.STORE, "a", "worst", "broken"),
                Finding.good(Group.STORE, "c"),
                Finding.good(Group.DISK, "d", "much room"),
            ],
            verbose=False,
        )
    )
    assert said == [
        "store: 1 problem, 1 warning, 1 ok",
        "  problem: a: broken [worst]",
        "  warning: b: worse [bad]",
        "    remedy: mend it",
        "disk: ok, much room",
        "found: 1 problem, 1 warning",
    ]


def test_the_manual_has_every_code_and_every_group() -> None:
    manual = (ROOT / "systemd" / "README.md").read_text().partition("## Doctor")[2]
    source = "".join(file.read_text() for file in (ROOT / "listener/cli/doctor").glob("*.py"))
    codes = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source)) - {"enabled-runtime", "not-found"}
    assert {code for code in codes if f"`{code}`" not in manual} == set()
    assert {group.value for group in Group if f"| {group.value} |" not in manual} == set()
    assert {level.value for level in Level if f"`{level.value}`" not in manual} == set()
