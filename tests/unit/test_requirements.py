"""What is installed is what was tested: every dependency is pinned, with the hashes of its files."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

_PIN = re.compile(
    r"([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)


def pins(name: str) -> dict[str, str]:
    """The releases that a file pins."""
    return {each[1]: each[2] for each in _PIN.finditer((REQUIREMENTS / f"{name}.txt").read_text())}


def plain(requirement: str) -> tuple[str, str]:
    """The name of a requirement, as the files spell it, and what it demands."""
    name, demand = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[.*\])?([^;]*).*", requirement).groups()  # type: ignore[union-attr]
    return re.sub(r"[-_.]+", "-", name).lower(), demand.strip()


def demanded() -> Iterator[tuple[str, str]]:
    extras = PROJECT["project"]["optional-dependencies"]
    files = {
        "run": PROJECT["project"]["dependencies"],
        **extras,
        "build": PROJECT["build-system"]["requires"],
    }
    for file, requirements in files.items():
        yield from ((file, each) for each in requirements if not each.startswith("sync-staging"))


@pytest.mark.parametrize("file", sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
def test_a_file_has_nothing_but_releases_with_the_hashes_of_their_files(file: str) -> None:
    text = (REQUIREMENTS / f"{file}.txt").read_text()
    assert _PIN.sub("", text) == "# Made by .ci/pin: each release, with the hashes of all its files.\n"
    assert pins(file)


@pytest.mark.parametrize(("file", "requirement"), list(demanded()))
def test_what_the_project_demands_is_pinned_at_a_release_that_it_allows(file: str, requirement: str) -> None:
    name, demand = plain(requirement)
    found = pins(file)[name]
    for least in re.findall(r">=([0-9.]+)", demand):
        assert numbers(found) >= numbers(least)
    for exact in re.findall(r"==([0-9.]+)", demand):
        assert found == exact


def numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release))


def test_no_release_is_pinned_in_two_files_that_are_installed_together() -> None:
    files = [pins(file) for file in ("run", "postgres", "build", "test")]
    names = [name for file in files for name in file]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("file", ["run", "postgres", "test"])
def test_what_these_tests_run_with_is_what_is_pinned(file: str) -> None:
    for name, release in pins(file).items():
        try:
            assert version(name) == release, name
        except PackageNotFoundError:
            assert name == "colorama", "it is for another platform"
