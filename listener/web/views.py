"""How nouns look in JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from listener.plans import Branch, Observation, Plan, equal
from listener.runs import Hold, Run, Trigger
from listener.sites import Environment


def moment(at: float | None) -> str | None:
    """Return Unix seconds as RFC 3339, in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def run(run: Run, triggers: Sequence[Trigger] | None = None) -> dict[str, Any]:
    """Return a run, with its triggers where they are given."""
    view: dict[str, Any] = {
        "id": run.id,
        "site": run.site,
        "environment": run.environment,
        "state": run.state.value,
        "created_at": moment(run.created_at),
        "not_before": moment(run.not_before),
        "started_at": moment(run.started_at),
        "finished_at": moment(run.finished_at),
        "attempt": run.attempt,
        "failures": run.failures,
        "successor": run.successor,
        "outcome": None,
    }
    if run.outcome is not None:
        outcome = run.outcome
        view["outcome"] = {
            "plan": outcome.plan,
            "live": outcome.live,
            "old": outcome.old,
            "new": outcome.new,
            "backup": outcome.backup,
            "removed_count": outcome.removed_count,
            "removed": list(outcome.removed),
            "warnings": list(outcome.warnings),
            "error": outcome.error,
            "message": outcome.message,
            "remedy": outcome.remedy,
            "durations": dict(outcome.durations),
        }
    if triggers is not None:
        view["triggers"] = [trigger(each) for each in triggers]
    return view


def trigger(trigger: Trigger) -> dict[str, Any]:
    """Return who asked for a run, when and how."""
    return {
        "id": trigger.id,
        "origin": trigger.origin.value,
        "actor": trigger.actor,
        "at": moment(trigger.at),
    }


def hold(hold: Hold | None) -> dict[str, Any] | None:
    """Return why an environment is frozen, by whom and since when."""
    if hold is None:
        return None
    return {"reason": hold.reason, "actor": hold.actor, "since": moment(hold.since)}


def environment(environment: Environment) -> dict[str, Any]:
    """Return what is configured for an environment."""
    return {
        "name": environment.name,
        "branch": environment.branch,
        "repository": str(environment.repository),
        "policy": environment.policy.value,
        "follow": environment.follow,
    }


def plan(environment: Environment, observation: Observation, plan: Plan) -> dict[str, Any]:
    """Return what a run would do now: commits apart, and the paths that it would add, change and remove."""
    drift = observation.drift
    return {
        "plan": plan.kind.value,
        "equal": equal(environment, observation.live, observation.branch),
        "reason": plan.reason,
        "remedy": plan.refusal.remedy if plan.refusal else "",
        "warnings": list(plan.warnings),
        "live": _commit(observation.live),
        "branch": _commit(observation.branch),
        "ahead": drift.ahead,
        "behind": drift.behind,
        "added_count": drift.added.count,
        "changed_count": drift.changed.count,
        "removed_count": drift.removed.count,
        "added": list(drift.added.listed),
        "changed": list(drift.changed.listed),
        "removed": list(drift.removed.listed),
    }


def _commit(branch: Branch | None) -> str:
    return branch.commit if branch else ""
