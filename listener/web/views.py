"""How nouns look in JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from listener.directory import Unlisted
from listener.errors import SyncError
from listener.observations import Branch, Observation
from listener.outcomes import LegOutcome, Outcome
from listener.plans import Plan, equal, undone
from listener.queue import Hold, QueuePosition
from listener.records import Arrival, Use
from listener.runs import Origin, Run, Trigger
from listener.sites import Environment, Leg
from listener.sync import Look


def moment(at: float | None) -> str | None:
    """Return Unix seconds as RFC 3339, in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def queue(run: Run, queue_position: QueuePosition, now: float, concurrency: int) -> dict[str, Any]:
    """Return where a waiting run stands: how many are before it, and when it may start at the earliest."""
    waits = (
        0.0 if queue_position.pace is None else queue_position.pace * (queue_position.ahead // concurrency)
    )
    return {"ahead": queue_position.ahead, "expected_start": moment(max(run.not_before, now) + waits)}


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
        "undoes": run.undoes,
        "outcome": None if run.outcome is None else outcome(run.outcome),
    }
    if triggers is not None:
        view["triggers"] = [trigger(each) for each in triggers]
    return view


def outcome(outcome: Outcome) -> dict[str, Any]:
    """Return what a run did: on its only repository, or on each of several."""
    legs = outcome.legs or (LegOutcome(),)
    view = _leg_outcome(legs[0]) if len(legs) == 1 else {"legs": [_leg_outcome(leg) for leg in legs]}
    return {
        **view,
        "warnings": list(outcome.warnings),
        "error": outcome.error,
        "message": outcome.message,
        "remedy": outcome.remedy,
        "durations": dict(outcome.durations),
    }


def _leg_outcome(leg: LegOutcome) -> dict[str, Any]:
    view = {**asdict(leg), "done": leg.done, "moved": leg.moved, "removed": list(leg.removed)}
    return {name: value for name, value in view.items() if name not in _OURS_ALONE}


_OURS_ALONE = frozenset({"state", "sent_for", "wait"})
"""What of a leg is for the run's next attempt."""


def trigger(trigger: Trigger) -> dict[str, Any]:
    """Return who asked for a run, when and how."""
    return {
        "id": trigger.id,
        "origin": trigger.origin.value,
        "actor": trigger.actor,
        "credential": trigger.credential,
        "client": trigger.client,
        "at": moment(trigger.at),
    }


def arrival(arrival: Arrival) -> dict[str, Any]:
    """Return what arrived and what became of it; no value of a credential or a signature is in it."""
    facts = arrival.facts
    changes = facts.get("changes")
    return {
        "id": arrival.id,
        "outcome": arrival.fate.value,
        "received_at": moment(arrival.at),
        "hook": arrival.hook,
        "request": arrival.request,
        "client": arrival.client,
        "credential": arrival.credential,
        "sender_id": arrival.key,
        "event": facts.get("event"),
        "repository": facts.get("repository"),
        "site": facts.get("site"),
        "refs": None if changes is None else [change["ref"] for change in changes],
        "size": arrival.size,
        "digest": arrival.digest,
        "same_body_as": arrival.same_body,
        "headers": dict(arrival.headers),
        "reason": arrival.reason,
        "status": arrival.status or None,
        "count": arrival.count,
        "last_received_at": None if arrival.last_at is None else moment(arrival.last_at),
        "runs": list(dict.fromkeys(each.run for each in arrival.served)),
        "redelivered": [
            {**trigger(each.trigger), "run": each.run}
            for each in arrival.served
            if each.trigger.origin is Origin.REDELIVERY
        ],
    }


def use(name: str, use: Use | None) -> dict[str, Any]:
    """Return how often a credential was used, and when last."""
    return {
        "name": name,
        "count": 0 if use is None else use.count,
        "last_used": None if use is None else moment(use.last),
    }


def hold(hold: Hold | None) -> dict[str, Any] | None:
    """Return why an environment is frozen, by whom and since when."""
    if hold is None:
        return None
    view = {"reason": hold.reason, "actor": hold.actor, "since": moment(hold.since)}
    if hold.live is not None:
        view["until_live_leaves"] = hold.live
    return view


def environment(environment: Environment) -> dict[str, Any]:
    """Return what is configured for an environment."""
    return {
        "name": environment.name,
        "legs": [{"repository": str(leg.repository), "branch": leg.branch} for leg in environment.legs],
        "policy": environment.policy.value,
        "follow": environment.follow,
    }


def looks(looks: Sequence[Look]) -> dict[str, Any]:
    """Return how an environment stands, on its only repository or on each of several."""
    if len(looks) == 1:
        return _look(looks[0])
    legs = [{"repository": str(each.leg), **_look(each)} for each in looks]
    return {"equal": all(leg.get("equal", False) for leg in legs), "legs": legs}


def unlisted(unlisted: Unlisted) -> dict[str, Any]:
    """Return why the sites of a pattern could not be listed."""
    error = unlisted.error
    return {
        "pattern": unlisted.pattern,
        "error": error.code,
        "message": error.message,
        "remedy": error.remedy,
    }


def _look(look: Look) -> dict[str, Any]:
    if look.observation is None or look.plan is None:
        error = look.error or SyncError()
        return {"error": error.code, "message": error.message, "remedy": error.remedy}
    return _plan(look.leg, look.observation, look.plan)


def _plan(leg: Leg, observation: Observation, plan: Plan) -> dict[str, Any]:
    """Return what a run would do now: commits apart, and the paths that it would add, change and remove."""
    drift, target = observation.drift, observation.target
    return {
        "plan": plan.kind.value,
        "equal": undone(leg, observation.branch, target)
        if target
        else equal(leg, observation.live, observation.branch),
        "reason": plan.reason,
        "remedy": plan.refusal.remedy if plan.refusal else "",
        "warnings": list(plan.warnings),
        "live": _commit(observation.live),
        "branch": _commit(observation.branch),
        **({"target": target.commit} if target else {}),
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
