"""A repository on a host with a shell: implements the port by requests of the dialogue."""

import math
from collections.abc import Awaitable
from dataclasses import replace

from listener.observations import PATHS_LISTED, Branch, Observation
from listener.plans import Applied, Notes, Plan, PlanKind, PriorMove, Signing
from listener.sites import Leg, Policy
from listener.ssh.connection import HostRequests
from listener.ssh.dialogue import Fields
from listener.ssh.replies import live_branch, read_applied, read_observation

BACKUPS = "refs/sync-staging/backup"

LISTED_BYTES = 1 << 20
"""How many bytes of paths a reply lists: a longer list would not fit into a reply."""

SURVEY_LISTED = 20
"""How many paths of each kind a survey lists."""


class SshRepository:
    """Implements `listener.plans.Repository` with a host's loaded shells."""

    def __init__(self, connection: HostRequests, leg: Leg, notes: Notes, limit: float) -> None:
        self._connection = connection
        self._leg = leg
        self._notes = notes
        self._limit = limit

    async def observe(
        self, *, counting: bool = False, target: str = "", prior: PriorMove | None = None
    ) -> Observation:
        """Read everything that a decision needs, in one round trip."""
        question = observe_fields(self._leg, PATHS_LISTED, counting=counting, target=target)
        if prior is not None:
            question |= {"since": prior.old, "run": prior.run}
        return read_observation(self._leg, await self._call("observe", question), counting=counting)

    async def apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, since: str = ""
    ) -> Applied:
        """Carry out a moving plan, read back and list what has changed, in one round trip."""
        to = observation.target.commit if observation.target else ""
        fields = self._order(signing, observation.target) | self._move(plan, observation, signing, to)
        fields |= observe_fields(self._leg, PATHS_LISTED, counting=False, target=to)
        return read_applied(self._leg, await self._call("apply", fields | {"since": since}), fields["backup"])

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        """Look, decide, move, read back and list what has changed, in one round trip."""
        fields = self._order(signing, None) | observe_fields(self._leg, PATHS_LISTED, counting=False)
        # Rounded up, and one more: where the host finds it older, `decide` must find so too.
        limit = str(math.ceil(quiet * 1000) + 1)
        fields |= {"kind": "forward", "seen": expected.standing, "quiet": limit}
        return read_applied(self._leg, await self._call("apply", fields, may_move), "")

    async def land(
        self, plan: Plan, observation: Observation, signing: Signing, new: str, incoming: str
    ) -> Applied:
        """Move the branch to the commit `new`, which was pushed to the ref `incoming`.

        What the host sees is not all that a decision needs: live lies in another repository.
        """
        fields = self._order(signing, observation.target) | self._move(plan, observation, signing, new)
        fields |= {
            "kind": PlanKind.FAST_FORWARD.value,
            "incoming": incoming,
            "compare": "tree",
            "counting": "no",
        }
        done = read_applied(self._leg, await self._call("apply", fields), fields["backup"])
        return replace(done, seen=None, left=None)

    def _order(self, signing: Signing, target: Branch | None) -> dict[str, str]:
        """Return the fields of a request that may move the branch."""
        subject, body = signing.message(self._leg, target)
        run = {"run": signing.run, "date": str(signing.at), "subject": subject, "body": body}
        return {**_address_fields(self._leg), **run}

    def _move(self, plan: Plan, observation: Observation, signing: Signing, to: str) -> dict[str, str]:
        """Return the fields of a decided move to the commit `to`; to live's if that is empty."""
        backup = ""
        if plan.kind is PlanKind.RESET and observation.branch is not None:
            # A run may reset more than once: each old commit needs a ref of its own.
            backup = backup_ref(self._leg, signing, observation.branch.commit)
        stale = plan.stale.get(f"{self._leg.branch}_in_progress", "")
        seen = observation.fingerprint
        return {"seen": seen, "kind": plan.kind.value, "to": to, "stale": stale, "backup": backup}

    async def expire(self, before: str) -> int:
        """Delete the backups of runs whose ids are below `before`; return how many."""
        return (await self._call("expire", {**_address_fields(self._leg), "before": before})).count("delete ")

    async def _call(self, verb: str, question: Fields, may_move: Awaitable[bool] | None = None) -> str:
        return await self._connection.call(self._notes, self._limit, verb, question, may_move=may_move)


def backup_ref(leg: Leg, signing: Signing, commit: str) -> str:
    """Return the ref that keeps a commit which a run takes away from the branch."""
    return f"{BACKUPS}/{leg.branch}/{signing.run}-{commit[:12]}"


def observe_fields(
    leg: Leg, listed: int | None, *, room: int = LISTED_BYTES, counting: bool, target: str = ""
) -> dict[str, str]:
    """Return the fields of the request `observe`. With `listed` as None, no paths are asked for."""
    return {
        **_address_fields(leg),
        "compare": "commit" if leg.policy is Policy.RESET else "tree",
        "listed": "" if listed is None else str(listed),
        "room": str(room),
        "counting": "yes" if counting else "no",
        "target": target,
    }


def _address_fields(leg: Leg) -> dict[str, str]:
    """Return the fields that name the repository and the branches."""
    at = leg.repository
    return {"path": at.path, "root": at.root, "live": live_branch(leg), "branch": leg.branch}
