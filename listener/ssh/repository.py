"""A repository on a host with a shell: implements the port by requests of the dialogue."""

from listener.observations import PATHS_LISTED, Observation
from listener.plans import Applied, Notes, Plan, PlanKind, Signing
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

    async def observe(self, *, counting: bool = False, target: str = "") -> Observation:
        """Read everything that a decision needs, in one round trip."""
        question = observe_fields(self._leg, PATHS_LISTED, counting=counting, target=target)
        return read_observation(self._leg, await self._call("observe", question))

    async def apply(self, plan: Plan, observation: Observation, signing: Signing) -> Applied:
        """Carry out a moving plan and read back, in one round trip."""
        target = observation.target
        return await self.move(plan, observation, signing, target.commit if target else "")

    async def move(
        self, plan: Plan, observation: Observation, signing: Signing, to: str, incoming: str = ""
    ) -> Applied:
        """Move the branch to the commit `to`, which is at the ref `incoming`; to live's if `to` is empty.

        Without `incoming`, the host makes the forward commit itself, with that commit's tree.
        """
        leg = self._leg
        kind = PlanKind.FAST_FORWARD if incoming else plan.kind
        backup = ""
        if plan.kind is PlanKind.RESET and observation.branch is not None:
            # A run may reset more than once: each old commit needs a ref of its own.
            backup = backup_ref(leg, signing, observation.branch.commit)
        subject, body = signing.message(leg, observation.target)
        text = await self._call(
            "apply",
            {
                **_address_fields(leg),
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
        return (await self._call("expire", {**_address_fields(self._leg), "before": before})).count("delete ")

    async def _call(self, verb: str, question: Fields) -> str:
        return await self._connection.call(self._notes, self._limit, verb, question)


def backup_ref(leg: Leg, signing: Signing, commit: str) -> str:
    """Return the ref that keeps a commit which a run takes away from the branch."""
    return f"{BACKUPS}/{leg.branch}/{signing.run}-{commit[:12]}"


def observe_fields(
    leg: Leg, listed: int, *, room: int = LISTED_BYTES, counting: bool, target: str = ""
) -> Fields:
    """Return the fields of the request `observe`."""
    return {
        **_address_fields(leg),
        "compare": "commit" if leg.policy is Policy.RESET else "tree",
        "listed": str(listed),
        "room": str(room),
        "counting": "yes" if counting else "no",
        "target": target,
    }


def _address_fields(leg: Leg) -> dict[str, str]:
    """Return the fields that name the repository and the branches."""
    at = leg.repository
    return {"path": at.path, "root": at.root, "live": live_branch(leg), "branch": leg.branch}
