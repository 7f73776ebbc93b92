"""Histories of a repository: drawn at random, and built in one git process."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from listener.observations import COMMITTER_EMAIL, COMMITTER_NAME
from listener.rehearsal.git import git
from listener.rehearsal.published import FIRST_DATE, Published

Files = Mapping[bytes, tuple[str, bytes]]
"""By path, a mode and a content; a submodule's content is the id of its commit."""

SUBMODULE = "160000"
MODES = ("100644", "100755", "120000", SUBMODULE)

SCRATCH = "refs/scratch"
NOWHERE = "0" * 40


@dataclass(frozen=True)
class Commit:
    """One commit of a history; its parents are named by their places in it."""

    parents: tuple[int, ...]
    files: Files
    ours: bool = False
    """Whether it bears the committer of a forward commit."""


@dataclass(frozen=True)
class Layout:
    """Which refs a repository has, by places in the history, and where its HEAD would like to be."""

    refs: Mapping[str, int]
    head: str


@dataclass(frozen=True)
class History:
    """Commits, live's repository and another one that has some of them."""

    commits: tuple[Commit, ...]
    source: Layout
    other: Layout


def build(path: Path, commits: tuple[Commit, ...], layout: Layout, *, bare: bool) -> Published:
    """Build a repository with these refs; checked out and clean, unless it is bare."""
    git(path.parent, "init", "--quiet", "--template=", *(["--bare"] if bare else []), str(path))
    repository = Published(path)
    repository.git("fast-import", "--quiet", stdin=b"".join(_stream(commits, layout.refs)))
    if bare or layout.head in layout.refs:
        repository.git("symbolic-ref", "HEAD", layout.head)
    elif layout.refs:
        # Were HEAD to name a branch that is not there, a publish would be about to make it.
        repository.git("update-ref", "--no-deref", "HEAD", repository.git("rev-parse", min(layout.refs)))
    if not bare and layout.refs:
        repository.git("reset", "--quiet", "--hard")
    return repository


def _stream(commits: tuple[Commit, ...], refs: Mapping[str, int]) -> Iterator[bytes]:
    """Tell git fast-import what the refs need."""
    for place in sorted(_reachable(commits, refs.values())):
        commit = commits[place]
        name, email = (COMMITTER_NAME, COMMITTER_EMAIL) if commit.ours else ("Studio", "studio@example.com")
        who = f"{name} <{email}> {FIRST_DATE + place} +0000"
        yield f"reset {SCRATCH}\ncommit {SCRATCH}\nmark :{place + 1}\ncommitter {who}\n".encode()
        yield _data(f"commit {place}".encode())
        for word, parent in zip(("from", *["merge"] * len(commit.parents)), commit.parents, strict=False):
            yield f"{word} :{parent + 1}\n".encode()
        yield b"deleteall\n"
        for path, (mode, content) in commit.files.items():
            yield from _file(path, mode, content)
    for ref, place in refs.items():
        yield f"reset {ref}\nfrom :{place + 1}\n".encode()
    yield f"reset {SCRATCH}\nfrom {NOWHERE}\n".encode()


def _reachable(commits: tuple[Commit, ...], places: Iterable[int]) -> set[int]:
    found: set[int] = set()
    waiting = [*places]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += commits[place].parents
    return found


def _file(path: bytes, mode: str, content: bytes) -> Iterator[bytes]:
    quoted = re.sub(rb"[^ !#-\[\]-~]", lambda byte: b"\\%03o" % ord(byte[0]), path)
    if mode == SUBMODULE:
        yield b'M %s %s "%s"\n' % (mode.encode(), content, quoted)
    else:
        yield b'M %s inline "%s"\n' % (mode.encode(), quoted)
        yield _data(content)


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


ODD = (
    *(b"a", b"b", b"site", b"index.xml", b"hero.blob", b" before", b"after ", b"in between"),
    *(b'"quoted"', b"it's", b"new\nline", b"tab\t", b"back\\slash", b"\xff\xfe", "ä€".encode()),
    *(b"-dash", b"*?[x]", b"$(exit 1)", b"\x01\x7f", b"~", b"HEAD", b"l" * 200),
)


def _allowed(name: bytes) -> bool:
    """Whether a file may be called so, by the system's rules and git's."""
    return not re.search(rb"[/\0]|^\.{1,2}$|^(\.git|git~)", name, re.IGNORECASE)


names = st.sampled_from(ODD) | st.binary(min_size=1, max_size=5).filter(_allowed)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, bytes]:
    mode = draw(st.sampled_from(MODES))
    if mode == SUBMODULE:
        return mode, draw(st.sampled_from("123")).encode() * 40
    return mode, draw(
        st.sampled_from((b"one\n", b"two\n", b"no newline", b"\0\xff binary"))
    ) if mode != "120000" else b"../somewhere else"


def put(files: dict[bytes, tuple[str, bytes]], path: bytes, entry: tuple[str, bytes]) -> None:
    """Write a file; what is in its way, a file or a folder, goes."""
    for there in list(files):
        if path.startswith(there + b"/") or there.startswith(path + b"/"):
            del files[there]
    files[path] = entry


@st.composite
def trees(draw: st.DrawFn, before: Files, earlier: tuple[Commit, ...]) -> Files:
    """A tree: another commit's, none at all, or `before` with some files written, moved and removed."""
    kind = draw(st.sampled_from(("edited", "edited", "edited", "edited", "an earlier one", "empty")))
    if kind == "empty":
        return {}
    if kind == "an earlier one" and earlier:
        return draw(st.sampled_from(earlier)).files
    files = dict(before)
    for _ in range(draw(st.integers(1, 4))):
        deed = draw(st.sampled_from(("write", "write", "change", "move", "remove")))
        old = draw(st.sampled_from(sorted(files))) if files and deed != "write" else None
        entry = draw(entries()) if deed in {"write", "change"} or old is None else files[old]
        if old is not None and deed != "change":
            del files[old]
        if deed != "remove":
            put(files, old if deed == "change" and old else draw(paths), entry)
    return files


@st.composite
def layouts(draw: st.DrawFn, places: int, *, live: bool) -> Layout:
    place = st.integers(0, places - 1)
    refs: dict[str, Any] = {
        "refs/heads/live": place if live else place | st.none(),
        "refs/heads/staging": st.one_of(place, place, place, st.none()),
        "refs/heads/master": place | st.none(),
        "refs/tags/v1": place | st.none(),
    }
    drawn = {ref: draw(strategy) for ref, strategy in refs.items()}
    head = draw(st.sampled_from(("staging", "staging", "live", "master", "nothing")))
    return Layout({ref: at for ref, at in drawn.items() if at is not None}, f"refs/heads/{head}")


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Histories with one root or several, with merges, and with the same tree at several commits."""
    commits: list[Commit] = []
    for place in range(draw(st.integers(2, 9))):
        earlier = st.integers(0, place - 1) if place else st.nothing()
        parents = tuple(draw(st.lists(earlier, unique=True, max_size=min(place, 3))))
        before = commits[parents[0]].files if parents else {}
        files = draw(trees(before, tuple(commits)))
        commits.append(Commit(parents, files, ours=draw(st.integers(0, 4)) == 4))
    source = draw(layouts(len(commits), live=True))
    return History(tuple(commits), source, draw(layouts(len(commits), live=False)))
