"""Repositories that are large in files, in refs or in commits are synced like any other, each way."""

import shutil
from collections.abc import Callable, Iterator, Mapping

import pytest

from listener.observations import PATHS_LISTED, Paths
from listener.plans import PlanKind
from listener.sites import Policy
from listener.ssh.repository import SURVEY_LISTED
from tests.contract.test_repository import a_run
from tests.histories import Commit, Files, History, Layout
from tests.ways import WAYS, Example, Way, World, world

__all__ = ["world"]

LIVE, STAGING, MASTER = "refs/heads/live", "refs/heads/staging", "refs/heads/master"

KINDS = ("live's own", "another, bare", "another where only git runs")

EACH_KIND = pytest.mark.parametrize("way", [WAYS[kind] for kind in KINDS], ids=KINDS)

Made = Callable[[Way, tuple[Commit, ...], Mapping[str, int]], Example]


@pytest.fixture
def made(world: World) -> Iterator[Made]:
    """Makes an example with these refs, live only where it belongs; takes it away at the end."""
    examples = []

    def make(way: Way, commits: tuple[Commit, ...], refs: Mapping[str, int]) -> Example:
        carried = refs if way.own else {ref: at for ref, at in refs.items() if ref != LIVE}
        history = History(commits, Layout(refs, STAGING), Layout(carried, STAGING))
        examples.append(world.example(way, history, Policy.FORWARD))
        return examples[-1]

    yield make
    for example in examples:
        shutil.rmtree(example.folder)


def files(numbers: range, text: bytes = b"<page/>\n") -> Files:
    return {b"site/website/%03d/%05d.xml" % (n % 100, n): ("100644", text) for n in numbers}


def synced(example: Example) -> None:
    """Sync and take it back, each once."""
    before, run = example.state(), a_run()
    done = example.sync(run)
    assert (done.plan, done.old) == (PlanKind.FORWARD_COMMIT, before.staging)
    assert example.carrier.tree("staging") == example.source.tree("live")
    synced = example.check(before)
    assert example.sync(a_run()).plan == PlanKind.UP_TO_DATE
    back = example.roll_back(run, done)
    assert (back.old, back.live) == (synced.staging, before.staging)
    assert example.carrier.git("diff-tree", before.staging, example.check(synced).staging) == ""


def bounded(paths: Paths, count: int, most: int) -> bool:
    return (paths.count, len(paths.listed)) == (count, min(count, most))


@EACH_KIND
def test_twenty_thousand_files_are_compared_with_every_path_counted_and_the_first_ones_listed(
    made: Made, way: Way
) -> None:
    live = files(range(20_000))
    staging = {
        **files(range(1_500, 18_500)),
        **files(range(1_500, 2_700), b"changed"),
        **files(range(30_000, 31_300)),
    }
    commits = (Commit((), {}), Commit((0,), live), Commit((0,), staging))
    example = made(way, commits, {LIVE: 1, STAGING: 2, MASTER: 0})
    for found, most in ((example.look(), PATHS_LISTED), (example.survey(), SURVEY_LISTED)):
        assert found.observation is not None
        drift = found.observation.drift
        assert bounded(drift.added, 3_000, most)
        assert bounded(drift.changed, 1_200, most)
        assert bounded(drift.removed, 1_300, most)
        assert (drift.ahead, drift.behind) == (1, 1)
    synced(example)


@EACH_KIND
def test_five_thousand_refs_are_passed_over(made: Made, way: Way) -> None:
    commits = (Commit((), files(range(3))), Commit((), files(range(5))))
    refs = {LIVE: 0, STAGING: 1, MASTER: 1}
    refs |= {f"refs/heads/feature/{number}": number % 2 for number in range(2_000)}
    refs |= {f"refs/heads/other-{number}_in_progress": number % 2 for number in range(500)}
    refs |= {f"refs/tags/2024-01-01T{number:06}Z_published_on_live": 1 for number in range(2_500)}
    example = made(way, commits, refs)
    if not way.own:
        # As git's own tidying leaves them; live's own are loose, as Studio leaves them.
        for repository in (example.source, example.carrier):
            repository.git("pack-refs", "--all")
    found = example.look()
    assert found.plan is not None
    assert found.plan.kind is PlanKind.FORWARD_COMMIT
    synced(example)


@EACH_KIND
def test_a_thousand_forward_commits_on_top_of_each_other_carry_one_more(made: Made, way: Way) -> None:
    commits = [Commit((), files(range(2))), Commit((), files(range(1)))]
    for number in range(1_000):
        live, staging = (len(commits) - 2, len(commits) - 1)
        lives = files(range(number % 7 + 1), b"%d" % number)
        commits.append(Commit((live,), lives))
        commits.append(Commit((staging, len(commits) - 1), lives, ours=True))
    commits.append(Commit((len(commits) - 2,), files(range(9))))
    places = len(commits)
    example = made(way, tuple(commits), {LIVE: places - 1, STAGING: places - 2, MASTER: 0})
    found = example.look()
    assert found.observation is not None
    assert (found.observation.drift.ahead, found.observation.drift.behind) == (1_001, 1)
    synced(example)
