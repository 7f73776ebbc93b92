"""Rolling a run back: a look shows what it would do; a run of its own does it, and sets a hold."""

from collections.abc import Callable

from listener.errors import ConflictError
from listener.journal import Log, Remarks
from listener.plans import PlanKind
from listener.queue import Hold, RunStore
from listener.runs import ENDED, Asker, Origin, Run, Trigger, new_id
from listener.sites import Environment, Sites
from listener.sync import Look, Synchronizer


class Rollbacks:
    """Looks at rollbacks, and starts them."""

    def __init__(
        self,
        store: RunStore,
        sites: Sites,
        synchronizer: Synchronizer,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._store = store
        self._sites = sites
        self._synchronizer = synchronizer
        self._clock = clock
        self._log = log

    async def look(self, run: Run) -> list[Look]:
        """Return what a rollback would do now in each repository where the run moved the branch.

        Raises `ConflictError` if there is nothing to roll back, and `NotFoundError`.
        """
        _, looks = await self._looked(run)
        return looks

    async def request(self, run: Run, asker: Asker) -> Run:
        """Start the rollback of a run; return the new run once it is durable.

        Raises `ConflictError` if the branch has moved since or can't go back for another reason, and
        `SyncError` if a repository can't be looked at now.
        """
        environment, looks = await self._looked(run)
        for look in looks:
            if look.error is not None and not look.error.permanent:
                raise look.error
            refusal = look.error or (look.plan.refusal if look.plan else None)
            if refusal is not None:
                raise ConflictError(f"{look.leg}: {refusal.message}", remedy=refusal.remedy)
        if all(look.plan is not None and look.plan.kind is PlanKind.UP_TO_DATE for look in looks):
            raise ConflictError("The environment is already where it was before the run.")
        live = await self._synchronizer.live(environment, self._remarks(environment))
        now = self._clock()
        trigger = Trigger(
            new_id(now),
            run.site,
            run.environment,
            Origin.ROLLBACK,
            asker.name,
            now,
            lane=environment.lane,
            credential=asker.credential,
            client=asker.client,
        )
        hold = Hold(run.site, run.environment, f"run {run.id} was rolled back", asker.name, now, live)
        started = await self._store.roll_back(trigger, run.id, hold)
        self._log.info(
            "rollback",
            site=run.site,
            environment=run.environment,
            undoes=run.id,
            run=started.id,
            **asker.facts,
        )
        return started

    async def _looked(self, run: Run) -> tuple[Environment, list[Look]]:
        if run.state not in ENDED:
            raise ConflictError(f"The run is {run.state}: it can be rolled back after it has ended.")
        if run.outcome is None or not run.outcome.undoable:
            raise ConflictError("The run did not move an existing branch: there is nothing to roll back.")
        environment = self._sites.environment(run.site, run.environment)
        looks = await self._synchronizer.look_back(environment, run, self._remarks(environment))
        if len(looks) != len(run.outcome.undoable):
            raise ConflictError("Some of the repositories do not carry the environment any more.")
        return environment, looks

    def _remarks(self, environment: Environment) -> Remarks:
        return Remarks(self._log, site=environment.site, environment=environment.name)
