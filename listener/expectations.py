"""What each leg's repository should be like, as the last look or run has left it.

After a start, it is what the stored looks have found. If the host finds the repository in this state, a move
needs no separate look. An entry that is out of date does no harm: the host answers with what it sees, and the
run goes on from there.
"""

from collections import OrderedDict
from dataclasses import replace

from listener.looks import LegLook
from listener.observations import Branch, Drift, Observation
from listener.sites import Leg

REMEMBERED = 20_000
"""How many legs are remembered."""


class Expectations:
    """Remembers, within bounds, what the last look or run has left of each leg's repository."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._seen: OrderedDict[Leg, Observation] = OrderedDict()
        self._distrusted: set[tuple[str, str]] = set()

    def remember(self, leg: Leg, seen: Observation) -> None:
        """Remember HEAD and the branch, where a move without a look is possible at all."""
        self._seen.pop(leg, None)
        if not seen.standing or seen.branch is None or seen.branch.target:
            return
        self._seen[leg] = replace(seen, live=None, times={}, in_progress={}, drift=Drift(), fingerprint="")
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def recall(self, leg: Leg, look: LegLook) -> None:
        """Remember what a stored look has found, unless there was a look or a run since the start."""
        if leg not in self._seen and look.standing and look.branch:
            branch = Branch(look.branch, tree="")
            seen = Observation(None, branch, "", bare=False, worktree="", now=0.0, standing=look.standing)
            self.remember(leg, seen)

    def of(self, leg: Leg) -> Observation | None:
        """Return what the repository should be like; None if a run has to look first."""
        return None if (leg.site, leg.environment) in self._distrusted else self._seen.get(leg)

    def distrust(self, leg: Leg) -> None:
        """Let each further run of the environment look first, until the listener starts again."""
        self._distrusted.add((leg.site, leg.environment))
