"""A repository on a host: what the port asks for, as requests of the dialogue."""

from listener.observations import PATHS_LISTED, Observation
from listener.plans import Applied, Notes, Plan, PlanKind, Signing
from listener.sites import Leg, Policy
from listener.ssh.connection import HostConnection
from listener.ssh.dialogue import Fields
from listener.ssh.replies import live_in, read_applied, read_observation

BACKUPS = "refs/sync-staging/backup"

LISTED_BYTES = 1 << 20
"""How many bytes of paths a reply lists: no list outgrows what a reply may hold."""

SURVEY_LISTED = 20
"""How many paths of each kind a survey lists."""


class SshRepository:
    """Implements `listener.plans.Repository` by a host's loaded shells."""

    def __init__(self, connection: HostConnection, leg: Leg, notes: Notes, limit: float) -> None:
        self._connection = connection
        self._leg = leg
        self._notes = notes
        self._limit = limit

    async def observe(self, *, counting: bool = False, target: str = "") -> Observation:
        """Read everything that a decision needs, in one round trip."""
        question = asked(self._leg, PATHS_LISTED, counting=counting, target=target)
        return read_observation(self._leg, await self._call("observe", question))

    async def apply(self, plan: Plan, observation: Observation, signing: Signing) -> Applied:
        """Carry out a moving plan and read back, in one round trip."""
        target = observation.target
        return await self.move(plan, observation, signing, target.commit if target else "")

    async def move(
        self, plan: Plan, observation: Observation, signing: Signing, to: str, incoming: str = ""
    ) -> Applied:
        """Move the branch to the commit `to`, which `incoming` has brought; to live's where that is empty.

        A forward commit is made here, of that commit's tree, unless it has been brought already.
        """
        leg = self._leg
        kind = PlanKind.FAST_FORWARD if incoming else plan.kind
        backup = ""
        if plan.kind is PlanKind.RESET and observation.branch is not None:
            # A run may have to reset more than once: each old commit has a ref of its own.
            backup = backup_ref(leg, signing, observation.branch.commit)
        subject, body = signing.message(leg, observation.target)
        text = await self._call(
            "apply",
            {
                **_place(leg),
                "seen": observation.fingerprint,
                "kind": kind.value,
                "to": to,
                "stale": plan.stale.get(f"{leg.branch}_in_progress", ""),
                "backup": backup,
                "incoming": incoming,
                "run": signing.run,
                "date": str(signing.at),
                "subject": subject,
                "body": body,
            },
        )
        return read_applied(leg, text, backup)

    async def expire(self, before: str) -> int:
        """Delete the backups of runs whose ids are below `before`; return how many."""
        return (await self._call("expire", {**_place(self._leg), "before": before})).count("delete ")

    async def _call(self, verb: str, question: Fields) -> str:
        return await self._connection.call(self._notes, self._limit, verb, question)


def backup_ref(leg: Leg, signing: Signing, commit: str) -> str:
    """Return the ref under which a run keeps a commit that it takes away from the branch."""
    return f"{BACKUPS}/{leg.branch}/{signing.run}-{commit[:12]}"


def asked(leg: Leg, listed: int, *, room: int = LISTED_BYTES, counting: bool, target: str = "") -> Fields:
    """Return the fields of the request `observe`."""
    return {
        **_place(leg),
        "compare": "commit" if leg.policy is Policy.RESET else "tree",
        "listed": str(listed),
        "room": str(room),
        "counting": "yes" if counting else "no",
        "target": target,
    }


def _place(leg: Leg) -> dict[str, str]:
    """Return the fields that tell which branch of which repository is meant."""
    at = leg.repository
    return {"path": at.path, "root": at.root, "live": live_in(leg), "branch": leg.branch}
